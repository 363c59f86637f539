package edge

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/bus"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/edgetest"
)

func TestAttemptsInsideTheBudget(t *testing.T) {
	t.Parallel()
	type reply struct {
		r   *usherv1.AuthReply
		err error
	}
	busy := reply{r: edgetest.Status(usherv1.AuthReply_STATUS_BUSY)}
	internal := reply{r: edgetest.Status(usherv1.AuthReply_STATUS_INTERNAL)}
	none := reply{err: bus.ErrNoWorker}
	silent := reply{err: bus.ErrTimeout}
	uncountable := reply{r: edgetest.Deny(&usherv1.AuthRequest{}, "unavailable")}
	nonsense := reply{r: &usherv1.AuthReply{Status: usherv1.AuthReply_STATUS_DECIDED, Outcome: "allow"}}
	cases := map[string]struct {
		uri     string
		replies []reply // then an allow
		want    int
		asks    int
		// reported says that the edge reports the answer itself: another worker may write
		// another row under its id.
		reported bool
	}{
		"busy, then another":                {"/hls/a/i?token=t", []reply{busy, busy}, 200, 3, false},
		"internal, then another":            {"/hls/a/i?token=t", []reply{internal}, 200, 2, true},
		"nobody, then somebody":             {"/hls/a/i?token=t", []reply{none, none, none}, 200, 4, false},
		"a reply that is none":              {"/hls/a/i?token=t", []reply{nonsense}, 200, 2, true},
		"denied without the ledger":         {"/hls/a/i?token=t", []reply{uncountable}, 403, 1, true},
		"silence, then another":             {"/hls/a/i?token=t", []reply{silent}, 200, 2, true},
		"silence twice":                     {"/hls/a/i?token=t", []reply{silent, silent}, 403, 2, true},
		"silence of an upstream is the end": {"/portal/a/i?token=t", []reply{silent}, 403, 1, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timed(t, func(t *testing.T, b *bench) {
				n := 0
				b.workers.Decide = func(ctx context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
					n++
					if n > len(c.replies) {
						return edgetest.Allow(m), nil
					}
					if r := c.replies[n-1]; r == uncountable {
						return edgetest.Deny(m, "unavailable"), nil
					} else if r != silent {
						return r.r, r.err
					}
					<-ctx.Done()
					return nil, bus.ErrTimeout
				}
				begin := time.Now()
				res := b.ask(segment(c.uri))
				wantStatus(t, name, res, c.want)
				wantAsked(t, name, b, c.asks)
				b.report(t)
				rows := b.journal.Rows()
				if (len(rows) == 1) != c.reported || len(rows) > 1 {
					t.Fatalf("the edge reported %v, want a row: %t", rows, c.reported)
				}
				if c.reported && (uuid.UUID(rows[0].GetId()) != decisionID(t, res) || (rows[0].GetOutcome() == "allow") != (c.want == http.StatusOK)) {
					t.Errorf("the edge reported %v, which is not what it answered", rows[0])
				}
				if took := time.Since(begin); took > 2*time.Second {
					t.Errorf("took %v, more than the budget", took)
				}
			})
		})
	}
}

func TestAWorkersClockIsTaken(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		const off = time.Hour
		b.workers.Decide = func(_ context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
			sec, nsec := uuid.UUID(m.GetId()).Time().UnixTime()
			if d := time.Since(time.Unix(sec, nsec)) + off; d.Abs() > 5*time.Minute {
				return &usherv1.AuthReply{
					Status: usherv1.AuthReply_STATUS_CLOCK, WorkerUnixMs: time.Now().Add(off).UnixMilli(),
				}, nil
			}
			return edgetest.Allow(m), nil
		}
		res := b.ask(astraRequest("token=1"))
		wantStatus(t, "clock", res, http.StatusOK)
		wantAsked(t, "clock", b, 2)
		if decisionID(t, res) != uuid.UUID(b.workers.Asked()[1].GetId()) {
			t.Error("the answer carries the id that was not decided")
		}
		r := astraRequest("token=2")
		r.Header.Set("X-Session-ID", "1002")
		wantStatus(t, "the next one", b.ask(r), http.StatusOK)
		wantAsked(t, "the next one", b, 3)
	})
}

func TestFailModes(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		uri             string
		known, stranger int
		reason          access.Reason // in the known one's row
	}{
		"deny":  {"/closed/a/i.m3u8?token=t", 403, 403, access.Unavailable},
		"allow": {"/free/a/i.m3u8?token=t", 200, 200, access.Uncounted},
		"grace": {"/hls/a/i.m3u8?token=t", 200, 403, access.Grace},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timed(t, func(t *testing.T, b *bench) {
				wantStatus(t, "opening", b.ask(segment(c.uri)), http.StatusOK)
				session := b.ask(segment(c.uri))
				wantStatus(t, "memory", session, http.StatusOK)
				b.workers.Decide = func(context.Context, *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
					return nil, bus.ErrNoWorker
				}
				time.Sleep(3 * time.Minute)
				begin := time.Now()
				res := b.ask(segment(c.uri))
				wantStatus(t, "known", res, c.known)
				if took := time.Since(begin); took > 2*time.Second {
					t.Errorf("answer took %v, more than the budget", took)
				}
				b.report(t)
				rows := b.journal.Rows()
				if len(rows) != 1 || uuid.UUID(rows[0].GetId()) != decisionID(t, res) || rows[0].GetReason() != string(c.reason) {
					t.Fatalf("rows = %v, want one with reason %s under the answer's id", rows, c.reason)
				}
				asked := b.workers.Asked()
				if last := asked[len(asked)-1]; uuid.UUID(last.GetId()) != decisionID(t, res) {
					t.Error("the outcome does not stand under the question's own id")
				}
				wantStatus(t, "stranger", b.ask(nginxRequest("web1", c.uri, "198.51.100.1", "VLC")), c.stranger)
				if c.known == http.StatusOK {
					// The next segments don't wait for the budget.
					begin = time.Now()
					wantStatus(t, "segment", b.ask(segment(c.uri)), http.StatusOK)
					if time.Since(begin) != 0 {
						t.Error("a segment waited although the fail mode has just let the viewer go on")
					}
				}
			})
		})
	}
}

func TestGraceEnds(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.ask(segment("/hls/a/i.m3u8?token=t"))
		b.workers.Decide = func(context.Context, *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
			return edgetest.Status(usherv1.AuthReply_STATUS_BUSY), nil
		}
		time.Sleep(defaultGrace - time.Minute)
		wantStatus(t, "in grace", b.ask(segment("/hls/a/1.ts")), http.StatusOK)
		time.Sleep(2 * time.Minute)
		wantReason(t, "after grace", b.ask(segment("/hls/a/1.ts")), access.Overload)
		b.workers.Decide = nil
		time.Sleep(2 * time.Second)
		wantStatus(t, "workers are back", b.ask(segment("/hls/a/1.ts")), http.StatusOK)
	})
}

func TestBeforeThePolicyArrives(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.view.Store(nil)
		b.viewed = make(chan struct{})
		begin := time.Now()
		wantReason(t, "no policy", b.ask(astraRequest("token=1")), access.Unavailable)
		if took := time.Since(begin); took > 800*time.Millisecond {
			t.Errorf("took %v, more than Astra's budget", took)
		}
		go func() {
			time.Sleep(200 * time.Millisecond)
			b.setPolicy(t, projection())
		}()
		wantStatus(t, "it arrives in time", b.ask(astraRequest("token=1")), http.StatusOK)
		synctest.Wait()
	})
}

func TestAPanicIsANo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.workers.Decide = func(context.Context, *usherv1.AuthRequest) (*usherv1.AuthReply, error) { panic("worker") }
	wantReason(t, "panic", b.ask(astraRequest("token=1")), access.Unavailable)
	b.workers.Decide = nil
	wantStatus(t, "after it", b.ask(astraRequest("token=1")), http.StatusOK)
}

// A worker let the viewer in whom we denied meanwhile: until our denial is recorded the ledger
// answers his next question with that session, under the id of our denial.
func TestADenialIsNoSessionsRow(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		session := uuid.New()
		var denied []byte
		b.workers.Decide = func(ctx context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
			switch r := edgetest.Allow(m); {
			case denied == nil || string(denied) == string(m.GetId()):
				denied = m.GetId()
				<-ctx.Done()
				return nil, bus.ErrTimeout
			case len(m.GetReplaces()) == 0:
				r.DecisionId, r.SessionId = denied, session[:]
				return r, nil
			default:
				if uuid.UUID(m.GetReplaces()) != session {
					t.Errorf("the question replaces %x, want %s", m.GetReplaces(), session)
				}
				return r, nil
			}
		}
		wantStatus(t, "silence", b.ask(segment("/hls/a/i?token=t")), http.StatusForbidden)
		time.Sleep(2 * denialMemory)
		res := b.ask(segment("/hls/a/i?token=t"))
		wantStatus(t, "again", res, http.StatusOK)
		asked := b.workers.Asked()
		if id := decisionID(t, res); id != uuid.UUID(asked[len(asked)-1].GetId()) || id == uuid.UUID(denied) {
			t.Errorf("the answer stands under %s, want an id of its own", id)
		}
		wantStatus(t, "memory", b.ask(segment("/hls/a/i?token=t")), http.StatusOK)
		b.report(t)
		if rows := b.journal.Rows(); len(rows) != 1 || rows[0].GetOutcome() != "deny" {
			t.Errorf("the edge reported %v, want its denial alone", rows)
		}
	})
}
