package bus_test

import (
	"sync"
	"testing"
	"time"

	"usher.internal/libs/bus"
	"usher.internal/libs/testkit"
	names "usher.internal/schemas/nats"
)

func TestEnsureStreamsAtOnceAndAgain(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	var wg sync.WaitGroup
	for range 8 {
		c := connected(t, s, "w1")
		wg.Go(func() {
			for range 2 {
				if err := c.EnsureStreams(within(t, 20*time.Second), region, 1); err != nil {
					t.Errorf("EnsureStreams: %v", err)
				}
			}
		})
	}
	wg.Wait()
	js, err := raw(t, s.ClientURL()).JetStream()
	if err != nil {
		t.Fatal(err)
	}
	info, err := js.StreamInfo(names.JournalStream(region))
	if err != nil {
		t.Fatal(err)
	}
	// What an operator changed stays.
	cfg := info.Config
	cfg.MaxAge, cfg.MaxBytes = 24*time.Hour, 1<<20
	if _, err := js.UpdateStream(&cfg); err != nil {
		t.Fatal(err)
	}
	if err := connected(t, s, "w1").EnsureStreams(within(t, 5*time.Second), region, 0); err != nil {
		t.Fatal(err)
	}
	if info, err = js.StreamInfo(names.JournalStream(region)); err != nil || info.Config.MaxAge != 24*time.Hour || info.Config.MaxBytes != 1<<20 {
		t.Errorf("config = %+v, %v, want the operator's limits kept", info.Config, err)
	}
}

func TestTheContractIsMended(t *testing.T) {
	t.Parallel()
	s, c := withStreams(t)
	js, err := raw(t, s.ClientURL()).JetStream()
	if err != nil {
		t.Fatal(err)
	}
	info, err := js.StreamInfo(names.ControlStream)
	if err != nil {
		t.Fatal(err)
	}
	cfg := info.Config
	cfg.MaxMsgsPerSubject = 5
	if _, err := js.UpdateStream(&cfg); err != nil {
		t.Fatal(err)
	}
	if err := c.EnsureStreams(within(t, 5*time.Second), region, 1); err != nil {
		t.Fatal(err)
	}
	if info, err = js.StreamInfo(names.ControlStream); err != nil || info.Config.MaxMsgsPerSubject != 1 {
		t.Errorf("messages per subject = %d, %v, want 1", info.Config.MaxMsgsPerSubject, err)
	}
}

func TestConnectRefusesNamesThatAreNoTokens(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "a.b", "*", ">"} {
		if _, err := bus.Connect(bus.Config{Name: name}, nil); err == nil {
			t.Errorf("name %q was taken", name)
		}
	}
}
