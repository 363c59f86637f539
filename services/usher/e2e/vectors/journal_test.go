package vectors_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/bus"
	"usher.internal/libs/decide/decidetest"
	"usher.internal/schemas/proto/usherv1"
)

// diary is what an edge journals: the rows of what it decided by itself.
type diary struct {
	mu   sync.Mutex // guards rows
	rows map[uuid.UUID]*usherv1.DecisionRow
}

// follow reads the region's journal until ctx ends.
func (d *diary) follow(ctx context.Context, c *bus.Conn, region string) error {
	from := func(time.Time) (uint64, error) { return 0, nil }
	read := func(_ context.Context, b bus.JournalBatch) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, e := range b.Entries {
			if r := e.Entry.GetDecision(); r != nil {
				d.rows[uuid.UUID(r.GetId())] = r
			}
		}
		return nil
	}
	return c.ReadJournal(ctx, region, from, 100, 10*time.Millisecond, read)
}

func (d *diary) row(id uuid.UUID) *usherv1.DecisionRow {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rows[id]
}

// refused holds what the edge alone refused to what every decision must tell: a row, who decided
// and why, and nothing that the viewer brought.
func (c *chain) refused(t *testing.T, q *decidetest.Question, a answer) {
	t.Helper()
	var row *usherv1.DecisionRow
	c.eventually("the edge has journaled its refusal", func() bool { row = c.diary.row(a.decision); return row != nil })
	var steps []access.Step
	if err := json.Unmarshal([]byte(row.GetSteps()), &steps); err != nil || len(steps) == 0 {
		t.Errorf("the edge's row has steps %q: %v", row.GetSteps(), err)
		return
	}
	last := steps[len(steps)-1]
	if row.GetReason() != a.reason || last.Name == "" || len(strings.Fields(last.Text)) < 2 {
		t.Errorf("the edge's row says %s by %+v of an answer %s", row.GetReason(), last, a.reason)
	}
	decidetest.HoldsNoSecrets(t, q.Request(), "", steps)
	if q.Ask != "" && strings.Contains(row.String(), q.Ask) {
		t.Errorf("the edge's row holds the query: %s", row)
	}
}
