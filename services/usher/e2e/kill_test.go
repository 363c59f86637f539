package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"usher.internal/libs/testkit"
)

// TestWorkersKilledUnderLoad: every caller gets an answer within his budget, none is counted
// twice, and every answer that was given equals its one row.
func TestWorkersKilledUnderLoad(t *testing.T) { //nolint:paralleltest // answers are held to their budgets
	f := assemble(t, testkit.NATS(t).ClientURL(), testkit.DSN(t), loadRules)
	f.recorder(t, "r1")
	_, one := f.edge(t, "e1")
	_, two := f.edge(t, "e2")
	workers := f.workers(t, 3)

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	l := newLoad(t, seed, 300, 400*time.Millisecond, one, two)
	ctx, stop := context.WithTimeout(t.Context(), 9*time.Second)
	defer stop()
	over := f.watchLimits(t, ctx, overSQL)
	asked := make(chan struct{})
	go func() { defer close(asked); l.run(ctx) }()
	kills, pauses := f.disturb(t, ctx, workers, rand.New(rand.NewPCG(seed, 1)))
	<-asked

	replies := l.since(time.Time{})
	if kills < 4 || pauses < 2 || len(replies) < 1000 {
		t.Errorf("%d kills, %d pauses and %d answers show little", kills, pauses, len(replies))
	}
	l.withinBudget(t)
	f.settled(t, replies)
	if bad := <-over; bad != "" {
		t.Errorf("more seats than the limit: %s", bad)
	}
	f.sound(t)
}

// disturb kills -9 and starts again, or stops for a while, one worker after another.
func (f *fleet) disturb(t *testing.T, ctx context.Context, workers []*process, rng *rand.Rand) (kills, pauses int) {
	t.Helper()
	sleep := func(most time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(rng.Int64N(int64(most)))):
		}
	}
	for n := 1; ctx.Err() == nil; n++ {
		i := rng.IntN(len(workers))
		if n%3 == 0 {
			workers[i].signal(syscall.SIGSTOP)
			sleep(1500 * time.Millisecond)
			workers[i].signal(syscall.SIGCONT)
			pauses++
		} else {
			workers[i].kill()
			sleep(500 * time.Millisecond)
			workers[i] = f.worker(t, workers[i].name)
			kills++
		}
		sleep(800 * time.Millisecond)
	}
	return kills, pauses
}

const overSQL = `
SELECT user_id || ' on ' || split_part(stream, '-', 1) || ': ' || count(*)
  FROM usher.sessions
 WHERE closed_at IS NULL AND expires_at > clock_timestamp() AND user_id IS NOT NULL
 GROUP BY user_id, split_part(stream, '-', 1)
HAVING split_part(stream, '-', 1) = 'live' AND count(*) > 3 OR split_part(stream, '-', 1) = 'film' AND count(*) > 2`

// watchLimits looks at the live seats until ctx ends and tells the first excess that the query finds,
// or "".
func (f *fleet) watchLimits(t *testing.T, ctx context.Context, query string) <-chan string {
	t.Helper()
	found := make(chan string, 1)
	go func() {
		defer close(found)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			rows, err := f.pool.Query(ctx, query)
			if err == nil {
				var all []string
				if all, err = pgx.CollectRows(rows, pgx.RowTo[string]); len(all) > 0 {
					found <- strings.Join(all, ", ")
					return
				}
			}
			if err != nil && ctx.Err() == nil {
				found <- err.Error()
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return found
}

// withinBudget: each caller was answered, in his dialect, within his node's budget.
func (l *load) withinBudget(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	replies, lag := l.replies, l.lag
	l.mu.Unlock()
	t.Logf("%d answers; %s; a refusal took %s at worst", len(replies), summary(replies), lag.Round(time.Millisecond))
	var bad []string
	for _, r := range replies {
		budget := nginxBudget
		if r.caller == "astra" {
			budget = astraBudget
		}
		if r.err != nil || r.took > budget+slack+2*lag || r.status != http.StatusOK && r.status != http.StatusForbidden {
			bad = append(bad, fmt.Sprintf("%s: status %d after %s: %v", r.caller, r.status, r.took, r.err))
		}
	}
	few(t, "not an answer in time", bad)
}

// settled waits until every answer that was given has its one row, which says the same.
func (f *fleet) settled(t *testing.T, replies []reply) {
	t.Helper()
	var bad []string
	for deadline := time.Now().Add(20 * time.Second); ; {
		rows := f.outcomes(t)
		bad = bad[:0]
		for _, r := range replies {
			if r.err != nil {
				continue
			}
			if got := rows[r.decision]; !slices.Equal(got, []string{r.outcome()}) {
				bad = append(bad, fmt.Sprintf("%s %s at %s (%s %s, %s): the rows say %q",
					r.caller, r.decision, r.asked.Format(time.TimeOnly+".000"), r.outcome(), r.reason, r.took, got))
			}
		}
		if len(bad) == 0 || time.Now().After(deadline) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	few(t, "an answer is not its row", bad)
	if len(bad) > 0 {
		f.explain(t, replies)
	}
}

// explain shows the row of the first answer that is not what it says.
func (f *fleet) explain(t *testing.T, replies []reply) {
	t.Helper()
	rows := f.outcomes(t)
	for _, r := range replies {
		if r.err != nil || slices.Equal(rows[r.decision], []string{r.outcome()}) {
			continue
		}
		var row string
		err := f.pool.QueryRow(t.Context(), `
			SELECT json_build_object('row', to_json(d), 'session', to_json(s))
			  FROM usher.decisions d LEFT JOIN usher.sessions s USING (session_id) WHERE d.decision_id = $1`, [16]byte(r.decision)).Scan(&row)
		t.Logf("%s: %s %v", r.decision, row, err)
		return
	}
}

// outcomes are all rows by their ids.
func (f *fleet) outcomes(t *testing.T) map[uuid.UUID][]string {
	t.Helper()
	rows, err := f.pool.Query(t.Context(), "SELECT decision_id, outcome FROM usher.decisions")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[uuid.UUID][]string)
	var id [16]byte
	var outcome string
	if _, err := pgx.ForEachRow(rows, []any{&id, &outcome}, func() error {
		all[id] = append(all[id], outcome)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// unsound are queries that find nothing in a database whose sessions and decisions agree.
var unsound = map[string]string{
	"a live seat whose question was not allowed": `
		SELECT s.session_id || ' ' || d.outcome || ' ' || d.reason FROM usher.sessions s JOIN usher.decisions d USING (decision_id)
		 WHERE s.closed_at IS NULL AND d.outcome <> 'allow'`,
	"a live seat without a row": `
		SELECT s.session_id::text FROM usher.sessions s LEFT JOIN usher.decisions d USING (decision_id) WHERE d.decision_id IS NULL`,
	"one viewer of a stream with two seats": `
		SELECT user_id || ' ' || stream || ' ' || device FROM usher.sessions
		 WHERE closed_at IS NULL AND caller = 'nginx' GROUP BY user_id, stream, device HAVING count(*) > 1`,
	"a session that was granted and never existed": `
		SELECT d.decision_id::text FROM usher.decisions d LEFT JOIN usher.sessions s USING (session_id)
		 WHERE d.outcome = 'allow' AND d.reason = 'granted' AND s.session_id IS NULL`,
	"a session that is both live and closed": `
		SELECT session_id::text FROM usher.sessions GROUP BY session_id HAVING count(*) > 1`,
}

// sound: nobody is counted who was not let in, and nobody twice.
func (f *fleet) sound(t *testing.T) {
	t.Helper()
	for what, query := range unsound {
		rows, err := f.pool.Query(t.Context(), query)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		all, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		few(t, what, all)
	}
}

// few reports the first of many findings.
func few(t *testing.T, what string, all []string) {
	t.Helper()
	if len(all) > 0 {
		t.Errorf("%s, %d times, such as:\n%s", what, len(all), strings.Join(all[:min(10, len(all))], "\n"))
	}
}

// summary counts answers by reason, with the slowest.
func summary(replies []reply) string {
	counts := make(map[string]int)
	var slowest time.Duration
	for _, r := range replies {
		counts[strings.TrimSpace(r.outcome()+" "+r.reason)]++
		slowest = max(slowest, r.took)
	}
	return fmt.Sprintf("%v, slowest %s", counts, slowest.Round(time.Millisecond))
}
