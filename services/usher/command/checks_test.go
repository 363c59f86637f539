package command

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"usher.internal/libs/pgstore"
)

func TestChecksStatus(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.says("no worker has told of any check", "checks", "status")
	store, err := pgstore.Open(t.Context(), pgstore.Config{DSN: d.dsn}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	now := time.Now()
	for worker, row := range map[string]pgstore.CheckStatus{
		"w1": {Check: "portal", Type: "ministra", State: "up", Since: now, LastOK: &now, Asked: 3, Yes: 2, No: 1, P50: 1.25, P99: 9},
		"w2": {Check: "portal", Type: "ministra", State: "open", Since: now, LastError: "it did not answer in time", Unavailable: 5},
	} {
		if err := store.PutChecks(t.Context(), worker, []pgstore.CheckStatus{row}); err != nil {
			t.Fatal(err)
		}
	}
	out, _ := d.run(0, "", "checks", "status")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 3 {
		t.Fatalf("usher checks status says\n%s, want a head and a line a worker", out)
	}
	for i, want := range []string{"w1 up", "w2 open"} {
		fields := strings.Join(strings.Fields(lines[i+1])[2:4], " ")
		if fields != want {
			t.Errorf("line %d says %q, want %q", i+1, fields, want)
		}
	}
	if !strings.Contains(lines[1], "1.2ms") || !strings.Contains(lines[2], "it did not answer in time") || strings.Contains(out, "stale") {
		t.Errorf("usher checks status says\n%s", out)
	}
	out, _ = d.run(0, "", "checks", "status", "--json")
	var rows []pgstore.CheckStatus
	if err := json.Unmarshal([]byte(out), &rows); err != nil || len(rows) != 2 || rows[1].State != "open" {
		t.Errorf("with --json: %v\n%s", err, out)
	}
}
