package edge

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/bus"
	"usher.internal/libs/directive"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/edgetest"
)

// directed is a directive in force for an hour.
func directed(kind directive.Kind, action directive.Action, change func(*directive.Directive)) directive.Directive {
	d := directive.Directive{
		ID: uuid.Must(uuid.NewV7()), Kind: kind, Action: action, At: time.Now(), Until: time.Now().Add(time.Hour), Reason: "resells", Author: "anna",
	}
	change(&d)
	return d
}

// hear has the edge hear of it, and end whom it hits.
func (b *bench) hear(d directive.Directive) {
	b.control(d.Control(false, d.At))
	b.endHit(b.purging.take())
}

func (b *bench) revoke(d directive.Directive) { b.control(d.Control(true, time.Now())) }

func fromViewer(d *directive.Directive) { d.Network = netip.MustParsePrefix("203.0.113.7/32") }

func TestABanEndsWhomItHitsAtOnce(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*testing.T, *bench, *directive.Directive){
		"address": func(_ *testing.T, _ *bench, d *directive.Directive) { fromViewer(d) },
		"node":    func(_ *testing.T, _ *bench, d *directive.Directive) { d.Node = "web1" },
		"stream":  func(_ *testing.T, _ *bench, d *directive.Directive) { d.Stream = "hls/*" },
		"device":  func(_ *testing.T, _ *bench, d *directive.Directive) { d.Device = "203.0.113.7 VLC/3.0" },
	} {
		timed(t, func(t *testing.T, b *bench) {
			b.ask(segment("/hls/a/i.m3u8?token=t"))
			wantStatus(t, name, b.ask(segment("/hls/a/1.ts")), http.StatusOK)
			d := directed(directive.Ban, directive.Deny, func(d *directive.Directive) { change(t, b, d) })
			b.hear(d)
			b.hear(d) // told twice
			first := b.ask(segment("/hls/a/i.m3u8?token=t"))
			wantReason(t, name+": playlist", first, access.Banned)
			wantReason(t, name+": segment", b.ask(segment("/hls/a/1.ts")), access.Banned)
			wantAsked(t, name, b, 1)
			b.report(t)
			rows := b.journal.Rows()
			if len(rows) != 1 || rows[0].GetReason() != "banned" || !strings.Contains(rows[0].GetSteps(), d.Words()) {
				t.Errorf("%s: rows %v, want one that says which ban", name, rows)
			}
			if got := b.journal.Repeats(decisionID(t, first)); got != 1 {
				t.Errorf("%s: repeats = %d, want 1", name, got)
			}
			b.revoke(d)
			wantStatus(t, name+": revoked", b.ask(segment("/hls/a/i.m3u8?token=t")), http.StatusOK)
			b.hear(d) // an older message, told late
			wantStatus(t, name+": still revoked", b.ask(segment("/hls/a/1.ts")), http.StatusOK)
		})
	}
}

func TestABanEndsByItself(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.hear(directed(directive.Ban, directive.Deny, func(d *directive.Directive) { fromViewer(d); d.Until = d.At.Add(time.Minute) }))
		time.Sleep(time.Minute - time.Millisecond)
		wantReason(t, "before its end", b.ask(segment("/hls/a/i.m3u8?token=t")), access.Banned)
		time.Sleep(time.Millisecond)
		wantStatus(t, "after it", b.ask(segment("/hls/a/i.m3u8?token=t")), http.StatusOK)
	})
}

func TestATokensBanHitsTheTokenAlone(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.ask(segment("/hls/a/i.m3u8?token=t"))
		b.hear(directed(directive.Ban, directive.Deny, func(d *directive.Directive) { d.Token = b.keyer.Fingerprint("t") }))
		wantReason(t, "playlist", b.ask(segment("/hls/a/i.m3u8?token=t")), access.Banned)
		wantReason(t, "segment", b.ask(segment("/hls/a/1.ts")), access.NoSession)
		wantStatus(t, "another token", b.ask(segment("/hls/a/i.m3u8?token=u")), http.StatusOK)
	})
}

func TestAUsersBanEndsHisSessions(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.purge(ctx) }()
		b.ask(segment("/hls/a/i.m3u8?token=t"))
		b.ask(segment("/hls/b/i.m3u8?token=t"))
		for user, left := range map[string]int64{"berta": 2} {
			d := directed(directive.Ban, directive.Deny, func(d *directive.Directive) { d.Realm, d.User = "main", user })
			b.control(d.Control(false, d.At))
			synctest.Wait()
			if got := b.table.count.Load(); got != left {
				t.Errorf("a ban of %s leaves %d sessions, want %d", user, got, left)
			}
		}
		d := directed(directive.Ban, directive.Deny, func(d *directive.Directive) { d.Realm, d.User = "main", "alice" })
		b.control(d.Control(false, d.At))
		synctest.Wait()
		if got := b.table.count.Load(); got != 0 {
			t.Errorf("%d sessions of hers are left", got)
		}
		// Whose the token is, a worker knows. One that has not heard of the ban yet changes nothing.
		wantReason(t, "let in by a worker that is late", b.ask(segment("/hls/a/i.m3u8?token=t")), access.Banned)
		wantAsked(t, "a worker says whose it is", b, 3)
		if b.table.count.Load() != 0 {
			t.Error("the session was kept")
		}
		cancel()
		<-done
	})
}

// away has no worker answer from now on.
func (b *bench) away() {
	b.workers.Decide = func(context.Context, *usherv1.AuthRequest) (*usherv1.AuthReply, error) { return nil, bus.ErrNoWorker }
}

func TestBansHoldInEveryFailMode(t *testing.T) {
	t.Parallel()
	for _, stream := range []string{"free/a", "closed/a", "portal/a", "a"} {
		timed(t, func(t *testing.T, b *bench) {
			uri := "/" + stream + "/i.m3u8?token=t"
			b.ask(segment(uri))
			b.away()
			b.hear(directed(directive.Ban, directive.Deny, fromViewer))
			time.Sleep(time.Hour / 2) // cut off for long, the lease is over
			wantReason(t, stream, b.ask(segment(uri)), access.Banned)
		})
		timed(t, func(t *testing.T, b *bench) {
			uri := "/" + stream + "/i.m3u8?token=t"
			b.ask(segment(uri))
			// Heard while the question about her running session is on its way.
			b.workers.Decide = func(context.Context, *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
				d := directed(directive.Ban, directive.Deny, func(d *directive.Directive) { d.Realm, d.User = "main", "alice" })
				b.control(d.Control(false, d.At))
				return nil, bus.ErrNoWorker
			}
			time.Sleep(5 * time.Minute)
			for range 2 {
				wantReason(t, stream+", by user", b.ask(segment(uri)), access.Banned)
			}
		})
	}
}

func TestWhomAUsersBanEndedStaysOutWhileCutOff(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		uri := "/free/a/i.m3u8?token=t"
		b.ask(segment(uri))
		d := directed(directive.Ban, directive.Deny, func(d *directive.Directive) { d.Realm, d.User = "main", "alice" })
		b.hear(d)
		b.away()
		wantReason(t, "the user", b.ask(segment(uri)), access.Banned)
		wantStatus(t, "another device with that token", b.ask(nginxRequest("web1", uri, "203.0.113.7", "another player")), http.StatusOK)
		b.culprits.sweep(b.book.Set().MayRefuse)
		time.Sleep(2 * time.Second)
		wantReason(t, "the user, later", b.ask(segment(uri)), access.Banned)
		b.revoke(d)
		wantStatus(t, "revoked", b.ask(segment(uri)), http.StatusOK)
		b.culprits.sweep(b.book.Set().MayRefuse)
		if len(b.culprits.accounts) != 0 {
			t.Error("she is remembered for ever")
		}
	})
}

func TestAnOverrideLetsInWhileNoWorkerAnswers(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.away()
		wantReason(t, "before", b.ask(segment("/closed/a/i.m3u8?token=t")), access.Unavailable)
		d := directed(directive.Override, directive.Allow, fromViewer)
		b.hear(d)
		wantStatus(t, "under the override", b.ask(segment("/closed/a/i.m3u8?token=t")), http.StatusOK)
		b.report(t)
		said := func(r *usherv1.DecisionRow) bool {
			return r.GetReason() == "override" && strings.Contains(r.GetSteps(), d.Words())
		}
		if rows := b.journal.Rows(); !slices.ContainsFunc(rows, said) {
			t.Errorf("rows %v, want one that says which override", rows)
		}
		b.hear(directed(directive.Ban, directive.Deny, fromViewer))
		wantReason(t, "banned all the same", b.ask(segment("/closed/a/i.m3u8?token=t")), access.Banned)
	})
}

func TestAnOverrideIsJudgedByAWorker(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		bare := "/hls/a/i.m3u8"
		wantReason(t, "without a token", b.ask(segment(bare)), access.NoSession)
		b.hear(directed(directive.Override, directive.Allow, fromViewer))
		wantStatus(t, "under the override", b.ask(segment(bare)), http.StatusOK)
		wantAsked(t, "under the override", b, 1)
	})
	timed(t, func(t *testing.T, b *bench) {
		b.workers.Decide = func(_ context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
			return edgetest.Deny(m, "refused"), nil
		}
		uri := "/hls/a/i.m3u8?token=t"
		wantReason(t, "before", b.ask(segment(uri)), access.Refused)
		b.workers.Decide = nil
		b.hear(directed(directive.Override, directive.Allow, func(d *directive.Directive) { d.Realm, d.User = "main", "alice" }))
		wantStatus(t, "at once", b.ask(segment(uri)), http.StatusOK)
	})
}

func TestADenyLeavesRoomForAnAccountsAllow(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.feedTick()
		uri := "/hls/a/i.m3u8?token=t"
		b.ask(segment(uri))
		b.hear(directed(directive.Override, directive.Deny, fromViewer))
		wantReason(t, "denied", b.ask(segment(uri)), access.Overridden)
		wantAsked(t, "denied", b, 1)
		b.hear(directed(directive.Override, directive.Allow, func(d *directive.Directive) {
			d.Realm, d.User, d.At = "main", "alice", d.At.Add(time.Millisecond)
		}))
		wantStatus(t, "a worker knows her", b.ask(segment(uri)), http.StatusOK)
		wantAsked(t, "a worker knows her", b, 2)
		time.Sleep(time.Hour / 2)
		wantReason(t, "cut off", b.ask(nginxRequest("web1", uri, "203.0.113.7", "another player")), access.Overridden)
	})
}

func (b *bench) feedTick() { b.lastTick.Store(int64(b.now())) }

func TestWhatIsNotUnderstoodChangesNothing(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.control(&usherv1.Control{Kind: "ban", Directive: &usherv1.Directive{Id: []byte{1}, Kind: "ban", Action: "deny", Node: "web1"}})
		wantStatus(t, "asked", b.ask(segment("/hls/a/i.m3u8?token=t")), http.StatusOK)
	})
}

func BenchmarkEndHit(b *testing.B) {
	t := setup(b)
	for i := range 100_000 {
		ses := &session{key: t.keyer.Key("s", string(rune(i))), prefix: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), node: unique.Make("web1")}
		ses.grant.Store(&grant{session: uuid.New(), realm: "main", user: "u"})
		ses.stream = unique.Make("a")
		t.table.put(ses)
	}
	list := []directive.Directive{directed(directive.Ban, directive.Deny, fromViewer)}
	t.book.Load(list)
	for b.Loop() {
		t.endHit(list)
	}
}
