package regions_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"usher.internal/libs/bus"
	names "usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/usher/creds"
)

// TestWhatAnEdgeMayNot tries, with an edge's credentials, what it must not reach.
func TestWhatAnEdgeMayNot(t *testing.T) {
	t.Parallel()
	r := newRealm(t)
	r.startHub(t)
	r.startRegion(t)
	rec := r.connect(t, r.hub[0], creds.Recorder, "r1", "hub", nil)
	if err := rec.EnsureStreams(within(t, 30*time.Second), "hub", 1); err != nil {
		t.Fatal(err)
	}
	if err := rec.EnsureRegion(within(t, 30*time.Second), "eu", 1); err != nil {
		t.Fatal(err)
	}
	if err := rec.PutPolicy(within(t, 10*time.Second), &usherv1.PolicyRevision{Revision: 1, Source: "secret"},
		map[string]*usherv1.Projection{names.EdgeProjectionKey("other"): {Revision: 1}}); err != nil {
		t.Fatal(err)
	}
	w := r.connect(t, r.hub[1], creds.Worker, "w1", "hub", nil)
	background(t, func(ctx context.Context) error { return w.ServeAuth(ctx, "hub", 4, 4, decide) })
	faults := make(chan error, 256)
	e := r.connect(t, r.eu, creds.Edge, "e2", "eu", faults)
	soon := func() context.Context { return within(t, 500*time.Millisecond) }
	if _, err := e.Ask(soon(), "hub", "other", &usherv1.AuthRequest{}); !errors.Is(err, bus.ErrTimeout) {
		t.Errorf("asking as another edge = %v, want ErrTimeout", err)
	}
	if err := e.Journal("eu", "other").Put(soon(), names.JournalRepeats, entry("x")); err == nil {
		t.Error("it journals as another edge")
	}
	if err := e.Journal("hub", "e2").Put(soon(), names.JournalRepeats, entry("x")); err == nil {
		t.Error("it journals in another region")
	}
	if err := e.Journal("eu", "e2").Put(soon(), names.JournalUncounted, entry("x")); err == nil {
		t.Error("it journals as a worker")
	}
	if _, err := e.PublishControl(soon(), &usherv1.Control{Kind: "kill", SessionId: []byte{1}}); err == nil {
		t.Error("it orders a kill")
	}
	if err := e.WatchPolicy(soon(), func(*usherv1.PolicyRevision) { t.Error("it reads the policy") }); err != nil {
		t.Errorf("WatchPolicy: %v", err)
	}
	if err := e.EnsureStreams(soon(), "eu", 1); err == nil {
		t.Error("it changes streams")
	}
	if len(faults) == 0 {
		t.Error("nothing was refused")
	}
}

// TestWhatNobodyMay reads others' requests and replies, and comes in without being known.
func TestWhatNobodyMay(t *testing.T) {
	t.Parallel()
	r := newRealm(t)
	r.startHub(t)
	r.ca.Issue("client", time.Now().Add(time.Hour))
	file := r.issue(t, creds.Edge, "e1", "hub")
	tls := []nats.Option{nats.RootCAs(r.path("ca.crt")), nats.ClientCert(r.path("client.crt"), r.path("client.key"))}
	refused := make(chan error, 64)
	nc, err := nats.Connect(url(r.hub[0]), append(tls, nats.UserCredentials(file), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))...)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, subject := range []string{">", "usher.v1.auth.>", "usher.v1.auth.hub.e1", "usher.v1.control.>", "_INBOX.>", "_INBOX.e2.>", "$KV.>", "$SYS.>", "$JS.API.>"} {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		if err := receive(t, "the refusal of "+subject, refused); !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("subscribing to %s = %v, want a violation", subject, err)
		}
	}
	strangers := map[string][]nats.Option{
		"without credentials": tls,
		"without certificate": {nats.RootCAs(r.path("ca.crt")), nats.UserCredentials(file)},
		"of another cluster":  append([]nats.Option{nats.UserCredentials(newRealm(t).issue(t, creds.Edge, "e1", "hub"))}, tls...),
	}
	for name, opts := range strangers {
		if nc, err := nats.Connect(url(r.hub[0]), opts...); err == nil {
			nc.Close()
			t.Errorf("%s: somebody came in", name)
		}
	}
}

// TestARegionIsCutOff reports over a cut of the link: nothing is lost, and nothing comes twice.
func TestARegionIsCutOff(t *testing.T) {
	t.Parallel()
	r := newRealm(t)
	r.startHub(t)
	r.startRegion(t)
	rec := r.connect(t, r.hub[0], creds.Recorder, "r1", "hub", nil)
	if err := rec.EnsureStreams(within(t, 30*time.Second), "hub", 3); err != nil {
		t.Fatal(err)
	}
	if err := rec.EnsureRegion(within(t, 30*time.Second), "eu", 1); err != nil {
		t.Fatal(err)
	}
	e := r.connect(t, r.eu, creds.Edge, "e2", "eu", nil)
	w := r.connect(t, r.hub[1], creds.Worker, "w1", "hub", nil)
	background(t, func(ctx context.Context) error { return w.ServeAuth(ctx, "hub", 4, 4, decide) })
	ask := func() error {
		_, err := e.Ask(within(t, 500*time.Millisecond), "hub", "e2", &usherv1.AuthRequest{})
		return err
	}
	eventually(t, 20*time.Second, "an answer from the hub", func() bool { return ask() == nil })
	read := &entries{seen: map[string]int{}}
	background(t, func(ctx context.Context) error {
		return rec.ReadJournal(ctx, "hub", func(time.Time) (uint64, error) { return read.at, nil }, 10, 20*time.Millisecond, read.take)
	})
	put := func(from, to int) {
		t.Helper()
		for n := from; n < to; n++ {
			if err := e.Journal("eu", "e2").Put(within(t, 5*time.Second), names.JournalRepeats, entry(string(rune('A'+n)))); err != nil {
				t.Fatalf("journal: %v", err)
			}
		}
	}
	put(0, 5)
	r.link.Cut()
	if err := ask(); err == nil {
		t.Error("an answer came over a cut link")
	}
	put(5, 20)
	r.link.Reset()
	r.link.Heal()
	eventually(t, 30*time.Second, "an answer after the cut", func() bool { return ask() == nil })
	put(20, 25)
	eventually(t, 60*time.Second, "all entries", func() bool { return read.count() == 25 })
	read.mu.Lock()
	defer read.mu.Unlock()
	for id, times := range read.seen {
		if times != 1 {
			t.Errorf("entry %s was read %d times", id, times)
		}
	}
}
