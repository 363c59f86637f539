package pgstore

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// revisions are the stored texts, oldest first.
func revisions(t *testing.T, s *Store) []string {
	t.Helper()
	rows, err := s.PolicyHistory(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, r := range slices.Backward(rows) {
		texts = append(texts, r.Source)
	}
	return texts
}

func apply(t *testing.T, s *Store, text string) int64 {
	t.Helper()
	n, err := s.ApplyPolicy(t.Context(), text, "me", "")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func trial(t *testing.T, s *Store, text string, lasts time.Duration) Trial {
	t.Helper()
	got, err := s.TryPolicy(t.Context(), text, "me", "why", lasts)
	if err != nil {
		t.Fatalf("TryPolicy(%q): %v", text, err)
	}
	return got
}

func TestAPolicyOnTrialGoesBackByItself(t *testing.T) {
	t.Parallel()
	s := setup(t)
	if _, err := s.TryPolicy(t.Context(), "a", "me", "", time.Hour); !errors.Is(err, ErrNothingBefore) {
		t.Errorf("the first policy of all, on trial: %v, want ErrNothingBefore", err)
	}
	a := apply(t, s, "a")
	b := trial(t, s, "b", time.Hour)
	if b.BackTo != a || time.Until(b.Due) < 50*time.Minute {
		t.Errorf("trial %+v, want back to %d in an hour", b, a)
	}
	if _, ok, err := s.GoBack(t.Context()); ok || err != nil {
		t.Errorf("GoBack before its time = %t, %v", ok, err)
	}
	c := trial(t, s, "c", 0)
	if c.BackTo != a {
		t.Errorf("a trial of a trial goes back to %d, want %d: nobody confirmed what is between", c.BackTo, a)
	}
	got, ok, err := s.GoBack(t.Context())
	if err != nil || !ok || got.Revision != c.Revision || got.BackTo != a {
		t.Errorf("GoBack = %+v, %t, %v, want %d back to %d", got, ok, err, c.Revision, a)
	}
	if _, ok, err := s.GoBack(t.Context()); ok || err != nil {
		t.Errorf("GoBack again = %t, %v", ok, err)
	}
	if got := revisions(t, s); !slices.Equal(got, []string{"a", "b", "c", "a"}) {
		t.Errorf("revisions %q, want a b c a", got)
	}
	if _, err := s.ConfirmPolicy(t.Context(), 0, "me"); !errors.Is(err, ErrNoTrial) {
		t.Errorf("confirming too late: %v, want ErrNoTrial", err)
	}
	rows, err := s.PolicyHistory(t.Context(), 2)
	if err != nil || rows[1].WentBack == nil || *rows[1].WentBack != rows[0].Revision || rows[0].Author != "usher" {
		t.Errorf("history %+v, %v, want the trial to say as what it went back", rows, err)
	}
	for text, want := range map[string]int64{"c": c.Revision, "a": 0, "b": 0, "never": 0} {
		if got, err := s.FailedTrial(t.Context(), text); got != want || err != nil {
			t.Errorf("FailedTrial(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	apply(t, s, "c")
	if got, err := s.FailedTrial(t.Context(), "c"); got != 0 || err != nil {
		t.Errorf("FailedTrial of what was applied since = %d, %v, want none", got, err)
	}
	for text, want := range map[string]bool{"a": true, "b": false, "c": true, "never": false} {
		if got, err := s.SeenPolicy(t.Context(), text, "usher"); got != want || err != nil {
			t.Errorf("SeenPolicy(%q) = %t, %v, want %t: stored by usher's newest revision or since", text, got, err, want)
		}
	}
}

func TestAConfirmedPolicyStays(t *testing.T) {
	t.Parallel()
	s := setup(t)
	apply(t, s, "a")
	b := trial(t, s, "b", 0)
	if _, err := s.ConfirmPolicy(t.Context(), b.Revision-1, "me"); !errors.Is(err, ErrNoTrial) {
		t.Errorf("confirming another revision: %v, want ErrNoTrial", err)
	}
	if got, err := s.ConfirmPolicy(t.Context(), b.Revision, "me"); got != b.Revision || err != nil {
		t.Errorf("ConfirmPolicy = %d, %v, want %d", got, err, b.Revision)
	}
	if _, ok, err := s.GoBack(t.Context()); ok || err != nil {
		t.Errorf("GoBack of a confirmed policy = %t, %v", ok, err)
	}
	if c := trial(t, s, "c", 0); c.BackTo != b.Revision {
		t.Errorf("the next trial goes back to %d, want the confirmed %d", c.BackTo, b.Revision)
	}
	apply(t, s, "d")
	if _, ok, err := s.GoBack(t.Context()); ok || err != nil {
		t.Errorf("GoBack although somebody applied another policy = %t, %v", ok, err)
	}
	if _, err := s.ConfirmPolicy(t.Context(), 0, "me"); !errors.Is(err, ErrNoTrial) {
		t.Errorf("confirming what was overtaken: %v, want ErrNoTrial", err)
	}
}

func TestATrialOfWhatAWatcherStoredAMomentAgo(t *testing.T) {
	t.Parallel()
	s := setup(t)
	a := apply(t, s, "a")
	b := apply(t, s, "b")
	if got := trial(t, s, "b", time.Hour); got.Revision != b || got.BackTo != a {
		t.Errorf("trial %+v, want revision %d itself, back to %d", got, b, a)
	}
	if got := trial(t, s, "b", 0); got.Revision != b || got.BackTo != a {
		t.Errorf("its time anew: %+v, want revision %d, back to %d", got, b, a)
	}
	if _, ok, err := s.GoBack(t.Context()); !ok || err != nil {
		t.Errorf("GoBack = %t, %v", ok, err)
	}
	h := harness{NewLedger(s), t}
	h.exec("UPDATE usher.policy_revision SET created_at = now() - interval '2 minutes'")
	if _, err := s.TryPolicy(t.Context(), "a", "me", "", time.Hour); !errors.Is(err, ErrNothingBefore) {
		t.Errorf("a trial of what has long been in force: %v, want ErrNothingBefore", err)
	}
}

func TestManyGoBackAtOnceAndOnceOnly(t *testing.T) {
	t.Parallel()
	s := setup(t)
	apply(t, s, "a")
	trial(t, s, "b", 0)
	var wg sync.WaitGroup
	var mu sync.Mutex
	went := 0
	for i := range 8 {
		wg.Go(func() {
			_, ok, err := s.GoBack(context.Background())
			if i%2 == 0 {
				_, cerr := s.ApplyPolicy(context.Background(), "x"+strconv.Itoa(i), "other", "")
				err = errors.Join(err, cerr)
			}
			mu.Lock()
			defer mu.Unlock()
			if ok {
				went++
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	texts := revisions(t, s)
	back := slices.Index(texts[2:], "a")
	if went > 1 || back > 0 || (went == 1) != (back == 0) {
		t.Errorf("went back %d times, revisions %q; want at most once, and never over what others applied", went, texts)
	}
}
