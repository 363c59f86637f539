package pgstore

import (
	"testing"
	"time"

	"usher.internal/libs/policy"
)

func TestChecksAreShownByWorker(t *testing.T) {
	t.Parallel()
	s := setup(t)
	now := time.Now().UTC().Truncate(time.Microsecond)
	portal := CheckStatus{
		Check: "portal", Type: "ministra", State: "open", Since: now, LastOK: &now, LastError: "it did not answer in time",
		Asked: 9, Yes: 3, No: 2, Unavailable: 4, P50: 1.5, P99: 480,
	}
	site := CheckStatus{Check: "site", Type: "securetoken", State: "idle", Since: now}
	for _, step := range []struct {
		worker string
		all    []CheckStatus
	}{{"w1", []CheckStatus{portal, site}}, {"w2", []CheckStatus{site, portal}}, {"w2", []CheckStatus{portal}}, {"w3", []CheckStatus{site}}, {"w3", nil}} {
		if err := s.PutChecks(t.Context(), step.worker, step.all); err != nil {
			t.Fatalf("PutChecks: %v", err)
		}
	}
	if _, err := s.pool.Exec(t.Context(), "UPDATE usher.check_status SET updated_at = updated_at - interval '1 minute' WHERE worker = 'w2'"); err != nil {
		t.Fatal(err)
	}
	all, err := s.Checks(t.Context(), 10)
	if err != nil || len(all) != 3 {
		t.Fatalf("Checks = %+v, %v, want portal of w1 and w2, site of w1", all, err)
	}
	for i, want := range []struct {
		worker, check string
		stale         bool
	}{{"w1", "portal", false}, {"w2", "portal", true}, {"w1", "site", false}} {
		if got := all[i]; got.Worker != want.worker || got.Check != want.check || got.Stale != want.stale {
			t.Errorf("row %d is %+v, want %+v", i, got, want)
		}
	}
	got := all[0]
	if !got.Since.Equal(now) || got.LastOK == nil || !got.LastOK.Equal(now) {
		t.Errorf("times are %v, %v, want %v", got.Since, got.LastOK, now)
	}
	got.Worker, got.Since, got.LastOK, got.UpdatedAt = "", now, &now, time.Time{}
	if got != portal {
		t.Errorf("Checks = %+v, want %+v", got, portal)
	}
	if _, err := s.pool.Exec(t.Context(), "UPDATE usher.check_status SET updated_at = updated_at - interval '2 days' WHERE worker = 'w2'"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Maintain(t.Context(), policy.Retention{}); err != nil {
		t.Fatal(err)
	}
	if all, err = s.Checks(t.Context(), 10); err != nil || len(all) != 2 {
		t.Errorf("after upkeep there are %+v, %v, want those of the worker that runs", all, err)
	}
}
