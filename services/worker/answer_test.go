package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/decide"
	"usher.internal/schemas/proto/usherv1"
)

func TestAnswerAllowsAndTakesASeat(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	m := ask()
	r := b.answer(within(t, time.Second), "e1", m)
	if r.GetStatus() != usherv1.AuthReply_STATUS_DECIDED || r.GetOutcome() != "allow" || r.GetReason() != "allow_rule" {
		t.Fatalf("answer = %v", r)
	}
	if got := idOf(t, r.GetDecisionId()); got != idOf(t, m.GetId()) {
		t.Errorf("decision %v, want the question's id", got)
	}
	if live := b.model.Live(); len(live) != 1 || live[0] != idOf(t, r.GetSessionId()) {
		t.Errorf("live sessions %v, want the answered one", live)
	}
	if r.GetLeaseMs() <= 0 || r.GetMaxSessions() != 2 || r.GetPolicyRevision() != 7 || r.GetUnaccounted() {
		t.Errorf("answer = %v", r)
	}
	o := b.ledger.last().Open
	if o.Edge != "e1" || o.Token.IsZero() || o.Token.String() == m.GetToken() || o.Seat <= o.Lease {
		t.Errorf("open = %+v", o)
	}
	for _, s := range o.Steps {
		if strings.Contains(s.Text, "secret-token") {
			t.Errorf("step tells the token: %+v", s)
		}
	}
	if o.Steps[0].Name != "edge to worker" || o.Steps[len(o.Steps)-1].Name != "limit" {
		t.Errorf("steps = %+v", o.Steps)
	}
}

func TestAnswerGoesByTheStreamsOwnName(t *testing.T) {
	t.Parallel()
	var known string
	b := setup(t, func(_ context.Context, r *access.Request) decide.Verdict {
		known = r.Known
		return decide.Verdict{Outcome: access.Allow, Reason: access.AllowRule, Stream: "clock", Subject: access.Key{1}, Limit: -1, Mode: access.EvictOldest, Lease: time.Minute, Seat: 2 * time.Minute}
	})
	r := b.answer(within(t, time.Second), "e1", ask(func(m *usherv1.AuthRequest) { m.Stream, m.KnownStream = "crf79", "before" }))
	if o := b.ledger.last().Open; o == nil || o.Stream != "clock" || r.GetStream() != "clock" || known != "before" {
		t.Errorf("row %+v, answer %v, known %q; want both to name clock, and the stream known before", o, r, known)
	}
}

func TestAnswerIsTheSameForTheSameQuestion(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	m := ask()
	one := b.answer(within(t, time.Second), "e1", m)
	two := b.answer(within(t, time.Second), "e1", m)
	if string(one.GetSessionId()) != string(two.GetSessionId()) || string(one.GetDecisionId()) != string(two.GetDecisionId()) {
		t.Errorf("second answer %v, want %v", two, one)
	}
	if b.model.Rows() != 1 || len(b.model.Live()) != 1 {
		t.Errorf("%d rows and %d seats, want one each", b.model.Rows(), len(b.model.Live()))
	}
}

func TestAnswerNamesTheHoldersOfAFullLimit(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	for range 2 {
		if r := b.answer(within(t, time.Second), "e1", ask()); r.GetOutcome() != "allow" {
			t.Fatalf("answer = %v", r)
		}
	}
	r := b.answer(within(t, time.Second), "e1", ask())
	if r.GetOutcome() != "deny" || r.GetReason() != "limit" || r.GetLocation() != "https://tv.example/too-many" {
		t.Errorf("answer = %v", r)
	}
	if want := "2 of 2 seats are taken: open/news on n1 since "; !strings.HasPrefix(r.GetText(), want) {
		t.Errorf("text %q, want it to begin %q", r.GetText(), want)
	}
	if len(r.GetSessionId()) != 0 || r.GetLeaseMs() != 0 {
		t.Errorf("a denial with a session or lease: %v", r)
	}
	if b.model.Rows() != 3 {
		t.Errorf("%d rows, want 3", b.model.Rows())
	}
}

func TestAnswerRefusesWhatIsNotTheEdges(t *testing.T) {
	t.Parallel()
	running := uuid.Must(uuid.NewV7())
	for name, c := range map[string]struct {
		change func(*usherv1.AuthRequest)
		reason access.Reason
	}{
		"node of another edge":  {func(m *usherv1.AuthRequest) { m.Node = "foreign" }, access.WrongEdge},
		"node that nobody has":  {func(m *usherv1.AuthRequest) { m.Node = "n9" }, access.UnknownNode},
		"no node":               {func(m *usherv1.AuthRequest) { m.Node = "" }, access.BadRequest},
		"short session key":     {func(m *usherv1.AuthRequest) { m.SessionKey = []byte{1} }, access.BadRequest},
		"zero session key":      {func(m *usherv1.AuthRequest) { m.SessionKey = make([]byte, 16) }, access.BadRequest},
		"short session id":      {func(m *usherv1.AuthRequest) { m.SessionId = []byte{1} }, access.BadRequest},
		"long replaced session": {func(m *usherv1.AuthRequest) { m.Replaces = make([]byte, 17) }, access.BadRequest},
		"address":               {func(m *usherv1.AuthRequest) { m.Ip = "somewhere" }, access.BadRequest},
		"token of 5 kB":         {func(m *usherv1.AuthRequest) { m.Token = strings.Repeat("x", 5000) }, access.BadRequest},
		"stream of 1 MB":        {func(m *usherv1.AuthRequest) { m.Stream = strings.Repeat("x", 1<<20) }, access.BadRequest},
		"query of 9 kB":         {func(m *usherv1.AuthRequest) { m.Query = strings.Repeat("x", 9000) }, access.BadRequest},
		"no rule":               {func(m *usherv1.AuthRequest) { m.Stream = "other" }, access.NoRule},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			m := ask(func(m *usherv1.AuthRequest) { m.SessionId = running[:] }, c.change)
			r := b.answer(within(t, time.Second), "e1", m)
			if r.GetStatus() != usherv1.AuthReply_STATUS_DECIDED || r.GetOutcome() != "deny" || r.GetReason() != string(c.reason) || r.GetText() == "" {
				t.Fatalf("answer = %v, want deny %s", r, c.reason)
			}
			audit := b.ledger.last().Audit
			if b.model.Rows() != 1 || audit == nil {
				t.Fatalf("%d rows, want the refusal's", b.model.Rows())
			}
			if c.reason != access.NoRule && audit.Close != uuid.Nil {
				t.Errorf("the refusal closes session %v that the edge has no right to", audit.Close)
			}
		})
	}
}

func TestAnswerGivesAQuestionWithoutAnIDOneOfItsOwn(t *testing.T) {
	t.Parallel()
	v4 := uuid.New()
	for name, id := range map[string][]byte{"none": nil, "random": v4[:], "short": {1, 2, 3}, "zero": make([]byte, 16)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			r := b.answer(within(t, time.Second), "e1", ask(func(m *usherv1.AuthRequest) { m.Id = id }))
			if r.GetReason() != "bad_request" || b.model.Rows() != 1 || idOf(t, r.GetDecisionId()).Version() != 7 {
				t.Errorf("answer = %v with %d rows", r, b.model.Rows())
			}
		})
	}
}

func TestAnswerRefusesAClockThatIsOff(t *testing.T) {
	t.Parallel()
	for name, off := range map[string]time.Duration{"slow": -6 * time.Minute, "fast": 6 * time.Minute, "200 years": 200 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			b.now = func() time.Time { return time.Now().Add(-off) }
			r := b.answer(within(t, time.Second), "e1", ask())
			if r.GetStatus() != usherv1.AuthReply_STATUS_CLOCK || r.GetOutcome() != "" || b.model.Rows() != 0 {
				t.Errorf("answer = %v with %d rows, want CLOCK and none", r, b.model.Rows())
			}
			if got := time.UnixMilli(r.GetWorkerUnixMs()); got.Sub(b.now()).Abs() > time.Minute {
				t.Errorf("worker's clock %v, want %v", got, b.now())
			}
		})
	}
}

func TestAnswerSurvivesAPanic(t *testing.T) {
	t.Parallel()
	b := setup(t, func(context.Context, *access.Request) decide.Verdict { panic("boom") })
	r := b.answer(within(t, time.Second), "e1", ask())
	if r.GetStatus() != usherv1.AuthReply_STATUS_INTERNAL || r.GetOutcome() != "" {
		t.Errorf("answer = %v, want INTERNAL", r)
	}
	if n := b.policies.current.Load().shares.Load(); n != 1 {
		t.Errorf("%d shares are held after the panic, want 1", n)
	}
}

func TestAnswerDeniedClosesTheRunningSession(t *testing.T) {
	t.Parallel()
	deny := false
	var b *bench
	b = setup(t, func(_ context.Context, r *access.Request) decide.Verdict {
		if deny {
			return decide.Verdict{Outcome: access.Deny, Reason: access.Expired, Text: "too late", Location: "https://x", Limit: -1}
		}
		return allowed(b, "u1")
	})
	m := ask()
	first := b.answer(within(t, time.Second), "e1", m)
	deny = true
	again := ask(func(n *usherv1.AuthRequest) {
		n.SessionKey, n.SessionId, n.Device = m.SessionKey, first.SessionId, m.Device
	})
	r := b.answer(within(t, time.Second), "e1", again)
	if r.GetOutcome() != "deny" || r.GetReason() != "expired" || r.GetText() != "too late" || r.GetLocation() != "https://x" {
		t.Errorf("answer = %v", r)
	}
	if len(b.model.Live()) != 0 {
		t.Errorf("the denied session is still live")
	}
}

// allowed is an allow for a user without a limit.
func allowed(b *bench, user string) decide.Verdict {
	return decide.Verdict{
		Outcome: access.Allow, Reason: access.Granted, Realm: "main", User: user, Limit: -1, Mode: access.EvictOldest,
		Subject: b.keyer.Key("user", "main", user), Lease: 3 * time.Minute, Seat: 4 * time.Minute,
		Rule: b.policies.current.Load().snapshot.Rules[0],
	}
}

func TestAnswerTellsWhomItEvicted(t *testing.T) {
	t.Parallel()
	var b *bench
	b = setup(t, func(context.Context, *access.Request) decide.Verdict {
		v := allowed(b, "u1")
		v.Limit = 1
		return v
	})
	first := b.answer(within(t, time.Second), "e1", ask())
	b.answer(within(t, time.Second), "e1", ask())
	if len(b.told.ended) != 1 || b.told.ended[0].Session != idOf(t, first.GetSessionId()) || b.told.ended[0].Reason != access.CloseEvicted {
		t.Errorf("told %+v, want the eviction of the first session", b.told.ended)
	}
}

func TestAnswerTellsWhereTheDeviceWent(t *testing.T) {
	t.Parallel()
	for _, believed := range []bool{false, true} {
		var b *bench
		b = setup(t, func(context.Context, *access.Request) decide.Verdict { return allowed(b, "u1") })
		on := func(stream string) *usherv1.AuthRequest {
			m := ask()
			m.Stream, m.Device = stream, "TV"
			return m
		}
		b.answer(within(t, time.Second), "e1", on("open/a"))
		next := on("open/b")
		next.CameBack = believed
		b.answer(within(t, time.Second), "e1", next)
		if len(b.told.ended) != 1 {
			t.Fatalf("told %+v, want the zap", b.told.ended)
		}
		c := b.told.ended[0].Control()
		if c.GetKind() != "zap" || string(c.GetByKey()) != string(next.GetSessionKey()) || c.GetByBelief() != believed {
			t.Errorf("told %v, want a zap by the new session's key, by belief: %v", c, believed)
		}
	}
}

// scripted is a committer that gives set answers.
type scripted struct {
	results []admission.Result
	errs    []error
	items   []admission.Item
	there   bool // the ledger answered a moment ago
}

func (s *scripted) Answered(time.Duration) bool { return s.there }

func (s *scripted) Do(_ context.Context, item admission.Item) (admission.Result, error) {
	i := len(s.items)
	s.items = append(s.items, item)
	return s.results[i], s.errs[i]
}

func TestAnswerGivesAShortLeaseOnASessionZappedMeanwhile(t *testing.T) {
	t.Parallel()
	var b *bench
	b = setup(t, func(context.Context, *access.Request) decide.Verdict { return allowed(b, "u1") })
	b.answerer.ledger = &scripted{
		results: []admission.Result{{Outcome: access.Allow, Reason: access.Granted, Session: uuid.Must(uuid.NewV7()), Live: false}},
		errs:    []error{nil},
	}
	r := b.answer(within(t, time.Second), "e1", ask())
	if r.GetOutcome() != "allow" || r.GetLeaseMs() != shortLease.Milliseconds() {
		t.Errorf("answer = %v, want allow for %s", r, shortLease)
	}
}

func TestASlowLedgerIsNotAway(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		there bool
		want  usherv1.AuthReply_Status
	}{
		"the ledger answered a moment ago": {true, usherv1.AuthReply_STATUS_BUSY},
		"the ledger has not answered":      {false, usherv1.AuthReply_STATUS_DECIDED},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b *bench
			b = setup(t, func(context.Context, *access.Request) decide.Verdict { return allowed(b, "u1") })
			b.answerer.ledger = &scripted{results: []admission.Result{{}}, errs: []error{errCommitSlow}, there: test.there}
			if r := b.answer(within(t, time.Second), "e1", ask()); r.GetStatus() != test.want {
				t.Errorf("answer = %v, want %s", r, test.want)
			}
		})
	}
}

func TestAnswerRefusesAnItemThatCannotBeStored(t *testing.T) {
	t.Parallel()
	var b *bench
	b = setup(t, func(context.Context, *access.Request) decide.Verdict { return allowed(b, "u1") })
	s := &scripted{
		results: []admission.Result{{}, {Outcome: access.Deny, Reason: access.BadRequest}},
		errs:    []error{fmt.Errorf("%w: 22021", admission.ErrBadItem), nil},
	}
	b.answerer.ledger = s
	r := b.answer(within(t, time.Second), "e1", ask())
	if r.GetOutcome() != "deny" || r.GetReason() != "bad_request" {
		t.Errorf("answer = %v, want a refusal", r)
	}
	if a := s.items[1].Audit; a == nil || a.Stream != "" || a.UserAgent != "" || a.Node != "n1" || a.ID != s.items[0].Open.ID {
		t.Errorf("second item %+v, want a bare audit of the same question", s.items[1])
	}
}

func TestAnswerKeepsARunningSessionWhoseUserNobodyCanTell(t *testing.T) {
	t.Parallel()
	away := false
	var b *bench
	b = setup(t, func(context.Context, *access.Request) decide.Verdict {
		v := allowed(b, "u1")
		if away {
			v.User, v.Reason, v.Unavailable, v.Subject = "", access.Grace, true, b.keyer.Key("ip", "x")
		}
		return v
	})
	m := ask()
	first := b.answer(within(t, time.Second), "e1", m)
	away = true
	again := func() *usherv1.AuthRequest {
		return ask(func(n *usherv1.AuthRequest) {
			n.SessionKey, n.SessionId, n.Device = m.SessionKey, first.SessionId, m.Device
		})
	}
	r := b.answer(within(t, time.Second), "e1", again())
	if r.GetOutcome() != "allow" || string(r.GetSessionId()) != string(first.GetSessionId()) || r.GetLeaseMs() != 180000 {
		t.Errorf("answer = %v, want the same session to go on", r)
	}
	if live := b.model.Live(); len(live) != 1 || live[0] != idOf(t, first.GetSessionId()) {
		t.Errorf("live %v, want the first session alone", live)
	}
	// A session that has ended is opened anew, by what is known of the viewer now.
	b.model.Kill(idOf(t, first.GetSessionId()), time.Minute)
	if r := b.answer(within(t, time.Second), "e1", again()); r.GetOutcome() != "deny" || r.GetReason() != "killed" {
		t.Errorf("answer = %v, want the kill to hold", r)
	}
}

func TestBudgetKeepsTimeForEachStage(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, left := range []time.Duration{50 * time.Millisecond, 380 * time.Millisecond, 2500 * time.Millisecond, time.Hour} {
		ctx, cancel := context.WithDeadline(t.Context(), now.Add(left))
		b := newBudget(ctx, now)
		cancel()
		if !b.checks.Before(b.commit) || !b.commit.Before(b.answer) || b.answer.After(now.Add(min(left, maxAnswer))) {
			t.Errorf("budget of %s: %s, %s, %s", left, b.checks.Sub(now), b.commit.Sub(now), b.answer.Sub(now))
		}
		if b.commit.Sub(b.checks) < minCommitReserve || b.answer.Sub(b.commit) < minJournalReserve {
			t.Errorf("budget of %s leaves %s to the ledger and %s to the journal", left, b.commit.Sub(b.checks), b.answer.Sub(b.commit))
		}
	}
	if b := newBudget(context.Background(), now); b.answer.Sub(now) != maxAnswer {
		t.Errorf("without a deadline: %s, want %s", b.answer.Sub(now), maxAnswer)
	}
}

func TestSessionIDIsDerived(t *testing.T) {
	t.Parallel()
	keyer, err := access.NewKeyer(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	q := uuid.Must(uuid.NewV7())
	id := sessionID(keyer, q)
	if id != sessionID(keyer, q) || id == q || id.Version() != 7 || id.Variant() != uuid.RFC4122 {
		t.Errorf("sessionID(%v) = %v", q, id)
	}
	if !admission.IDTime(id).Equal(admission.IDTime(q)) {
		t.Errorf("time of %v is not that of %v", id, q)
	}
	if id == sessionID(keyer, uuid.Must(uuid.NewV7())) {
		t.Error("two questions, one session")
	}
}

func TestLimitTextNamesAFew(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 20, 15, 4, 0, time.UTC)
	holders := make([]admission.Holder, 7)
	for i := range holders {
		holders[i] = admission.Holder{Stream: fmt.Sprint("s", i), Node: "n", OpenedAt: at}
	}
	want := "7 of 7 seats are taken: s0 on n since 2026-11-23 20:15:04Z, s1 on n since 2026-11-23 20:15:04Z, s2 on n since 2026-11-23 20:15:04Z, " +
		"s3 on n since 2026-11-23 20:15:04Z, s4 on n since 2026-11-23 20:15:04Z and 2 more"
	if got := limitText(7, 0, "", holders); got != want {
		t.Errorf("limitText = %q, want %q", got, want)
	}
	if got := limitText(3, 0, "", nil); got != "3 of 3 seats are taken" {
		t.Errorf("limitText = %q", got)
	}
	v := &decide.Verdict{Limit: 5, More: []decide.Limit{{Sessions: 2, Name: "of this device in streams[0]"}}}
	if got := fullText(v, &admission.Result{Full: 1, Taken: 2}); got != "2 of 2 seats of this device in streams[0] are taken" {
		t.Errorf("fullText = %q", got)
	}
	v.Limit = -1
	if got := fullText(v, &admission.Result{Taken: 3}); got != "3 of 2 seats of this device in streams[0] are taken" {
		t.Errorf("fullText = %q", got)
	}
}

func FuzzAnswer(f *testing.F) {
	id := uuid.Must(uuid.NewV7())
	f.Add(id[:], id[:], []byte(nil), "n1", "open/news", "t", "198.51.100.7", "ua")
	f.Add([]byte{1}, id[:], id[:], "foreign", "open/\x00", "", "::1%eth0", "\xff\xfe")
	f.Add(id[:], []byte(nil), id[:], "", strings.Repeat("x", 5000), "t", "999", strings.Repeat("ü", 2000))
	f.Fuzz(func(t *testing.T, id, key, session []byte, node, stream, token, ip, ua string) {
		b := setup(t, nil)
		r := b.answer(within(t, time.Second), "e1", &usherv1.AuthRequest{
			Id: id, SessionKey: key, SessionId: session, Node: node, Stream: stream, Token: token, Ip: ip, UserAgent: ua, Caller: ua, Device: ua,
		})
		switch r.GetStatus() {
		case usherv1.AuthReply_STATUS_CLOCK:
		case usherv1.AuthReply_STATUS_DECIDED:
			if b.model.Rows() != 1 || len(r.GetDecisionId()) != 16 || r.GetReason() == "" {
				t.Errorf("answer %v with %d rows", r, b.model.Rows())
			}
		default:
			t.Errorf("status %v", r.GetStatus())
		}
	})
}

func TestAnswerWithoutAPolicyIsInternal(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.policies.current.Store(nil)
	if r := b.answer(within(t, time.Second), "e1", ask()); r.GetStatus() != usherv1.AuthReply_STATUS_INTERNAL {
		t.Errorf("answer = %v, want INTERNAL", r)
	}
	if err := b.policies.check(); !errors.Is(err, errNoPolicy) {
		t.Errorf("readiness = %v, want %v", err, errNoPolicy)
	}
}

func TestReasonLabelsAreFew(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]string{"": "", "granted": "granted", "limit": "limit", "made up by an edge": "other"} {
		if got := reasonLabel(reason); got != want {
			t.Errorf("reasonLabel(%q) = %q, want %q", reason, got, want)
		}
	}
}
