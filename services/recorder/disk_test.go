package recorder

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestTheOldestGoesWhileTheDiskIsFull(t *testing.T) {
	t.Parallel()
	store := &fakeStore{history: []string{"decision_steps_20260101", "decision_20260101", "session_history_20260101"}}
	var log strings.Builder
	room := []float64{0.79, 0.91, 0.85, 0.79, 0.99}
	w := &diskWatch{path: "/data", author: "r1", store: store, log: slog.New(slog.NewTextHandler(&log, nil)), metrics: newMetrics(prometheus.NewRegistry()),
		used: func(path string) (float64, error) {
			if path != "/data" {
				t.Errorf("asked for the room at %q", path)
			}
			now := room[0]
			if len(room) > 1 {
				room = room[1:]
			}
			return now, nil
		}}
	look := func(left int) {
		t.Helper()
		if err := w.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(store.history) != left {
			t.Errorf("%d partitions left, want %d", len(store.history), left)
		}
	}
	look(3) // 0.79
	look(1) // 0.91, 0.85, 0.79
	look(0) // 0.99 for good: the last one, then nothing is left
	look(0)
	if n := testutil.ToFloat64(w.metrics.early.WithLabelValues()); n != 3 {
		t.Errorf("metric counts %v, want 3", n)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 4 || !strings.Contains(log.String(), "partition=decision_steps_20260101") {
		t.Errorf("log has %d errors, want one a partition and one that nothing is left:\n%s", n, log.String())
	}
	w.used = func(string) (float64, error) { return 0, errAway }
	if err := w.look(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("look = %v, want %v", err, errAway)
	}
}

func TestDiskUsed(t *testing.T) {
	t.Parallel()
	used, err := diskUsed(t.TempDir())
	if err != nil || used <= 0 || used >= 1 {
		t.Errorf("diskUsed = %v, %v", used, err)
	}
	if _, err := diskUsed(fmt.Sprint(t.TempDir(), "/none")); err == nil {
		t.Error("a missing path has room")
	}
}
