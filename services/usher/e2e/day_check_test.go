//go:build day

package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"usher.internal/libs/testkit/streamer"
)

// checkEvery is how often the ledger is held against the nodes.
const checkEvery = 250 * time.Millisecond

// bounds are how long the ledger may differ from the nodes, each way.
type bounds struct{ seat, play time.Duration }

// bound is what the policy promises. A seat without a player lasts until the node's list was read once
// more, and longer by what the node was away. A player without a seat has zapped away and his node keeps
// what he left for its idle time, or his answer lasts for its lease.
func (d *day) bound() bounds {
	return bounds{seat: 2*d.poll + d.down + daySlack, play: d.lease + d.idle + daySlack}
}

const (
	// zapTolerance is how long DESIGN.md lets a zapped session go on without a seat, before it is asked
	// what it is.
	zapTolerance = 20 * time.Second
	// seatMargin is how much longer than all else a seat lives of which nothing is heard.
	seatMargin = 30 * time.Second
	// savedEvery is what an edge that is killed may have opened that its file does not know.
	savedEvery = 3 * time.Second
)

// hold is what an Astra's seat lasts that nothing is heard of, with the ledger's margin.
func (d *day) hold() time.Duration { return d.lease + d.idle + d.poll }

// seatBound is that of a seat without a player: one that was opened a moment before its edge went away, or
// ended while it was away, is known to nobody who comes back.
func (d *day) seatBound(s *seat) time.Duration {
	b, down := d.bound().seat, &d.edges[d.node(s.node).edge].down
	switch {
	case down.covers(s.opened, s.opened.Add(savedEvery)):
		return d.hold() + seatMargin + daySlack
	case down.covers(time.Now().Add(-b-savedEvery-d.down), time.Now()):
		return b + d.down + savedEvery
	}
	return b
}

// zappedSQL finds what was zapped and may play on for a while, and what was zapped the moment that it was
// opened.
//
// TODO(#4): a server's question about the stream that a device leaves, asked in the milliseconds before its
// edge hears of the zap, opens that stream anew and zaps the new one, whose player goes on without a seat.
const zappedSQL = `
SELECT node || ' ' || stream || ' ' || user_agent, bool_or(closed_at - opened_at < interval '1 second')
  FROM usher.sessions
 WHERE close_reason = 'zapped' AND closed_at > clock_timestamp() - $1 * interval '1 second'
 GROUP BY 1`

// zapped gives what was zapped lately, by node, stream and device, and whether at once.
func (d *day) zapped(ctx context.Context) (map[string]bool, error) {
	rows, err := d.pool.Query(ctx, zappedSQL, (2*time.Minute + zapTolerance).Seconds())
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	var k string
	var atOnce bool
	_, err = pgx.ForEachRow(rows, []any{&k, &atOnce}, func() error { found[k] = atOnce; return nil })
	return found, err
}

// stolen are players whose seat went back to the stream that they had left, and the rest.
func stolen(uncounted []play, zapped map[string]bool) (theirs, rest []play) {
	for _, p := range uncounted {
		if zapped[p.node+" "+p.Stream+" "+p.UserAgent] {
			theirs = append(theirs, p)
		} else {
			rest = append(rest, p)
		}
	}
	return theirs, rest
}

// seat is a live one of the ledger.
type seat struct {
	id, node, stream, agent string
	opened                  time.Time
}

const seatsSQL = `
SELECT session_id::text, node, stream, user_agent, opened_at
  FROM usher.sessions
 WHERE closed_at IS NULL AND expires_at > clock_timestamp()
 ORDER BY opened_at DESC`

func (d *day) seats(ctx context.Context) ([]seat, error) {
	rows, err := d.pool.Query(ctx, seatsSQL)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (s seat, err error) {
		err = row.Scan(&s.id, &s.node, &s.stream, &s.agent, &s.opened)
		return s, err
	})
}

// play is a session that a node really plays.
type play struct {
	node string
	streamer.Play
}

func (d *day) plays() []play {
	var all []play
	for _, n := range d.nodes {
		for _, p := range n.Playing() {
			all = append(all, play{n.name, p})
		}
	}
	slices.SortStableFunc(all, func(a, b play) int { return b.Opened.Compare(a.Opened) })
	return all
}

// difference pairs seats with what plays, newest first, by node, stream and device, and gives what
// is left over on each side. unasked ones never asked: nobody could count them.
func difference(seats []seat, plays []play) (empty []seat, uncounted, unasked []play) {
	free := map[string][]seat{}
	for _, s := range seats {
		k := s.node + " " + s.stream + " " + s.agent
		free[k] = append(free[k], s)
	}
	for _, p := range plays {
		k := p.node + " " + p.Stream + " " + p.UserAgent
		switch {
		case len(free[k]) > 0:
			free[k] = free[k][1:]
		case p.Unasked:
			unasked = append(unasked, p)
		default:
			uncounted = append(uncounted, p)
		}
	}
	for _, left := range free {
		empty = append(empty, left...)
	}
	return empty, uncounted, unasked
}

// drift is the longest that one side has been without the other.
type drift struct {
	since map[string]time.Time
	worst time.Duration
	told  map[string]bool
}

// found is a difference, and how long it may last.
type found struct {
	what  string
	bound time.Duration
}

// look takes what differs now; what was found for longer than the bound is told once.
func (f *drift) look(now time.Time, differs map[string]found, tell func(what string, age time.Duration)) {
	maps.DeleteFunc(f.since, func(k string, _ time.Time) bool { _, still := differs[k]; return !still })
	for k, one := range differs {
		if _, known := f.since[k]; !known {
			f.since[k] = now
		}
		age := now.Sub(f.since[k])
		if age > f.worst {
			f.worst = age
		}
		if age > one.bound && !f.told[k] {
			f.told[k] = true
			tell(one.what, age)
		}
	}
}

func newDrift() *drift { return &drift{since: map[string]time.Time{}, told: map[string]bool{}} }

// check compares again and again until ctx ends.
func (d *day) check(ctx context.Context) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(checkEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				d.compare(ctx)
			}
		}
	}()
	return done
}

func (d *day) compare(ctx context.Context) {
	now := time.Now()
	seats, err := d.seats(ctx)
	plays := d.plays()
	var zapped map[string]bool
	if err == nil {
		zapped, err = d.zapped(ctx)
	}
	if err != nil {
		if ctx.Err() == nil {
			d.log.violation("reading the ledger: %v", err)
		}
		return
	}
	empty, uncounted, _ := difference(seats, plays)
	less, more := map[string]found{}, map[string]found{}
	for _, s := range empty {
		less[s.id] = found{fmt.Sprintf("%s on %s of %s, opened %s", s.agent, s.stream, s.node, s.opened.Format(stamp)), d.seatBound(&s)}
	}
	for _, p := range uncounted {
		bound := d.bound().play
		switch atOnce, ok := zapped[p.node+" "+p.Stream+" "+p.UserAgent]; {
		case atOnce:
			continue
		case ok:
			bound = zapTolerance + d.lease + 2*d.poll + daySlack
		}
		more[fmt.Sprint(p.node, p.ID, p.Opened)] = found{fmt.Sprintf("%s on %s of %s, session %s, opened %s, last request %s, connected %t",
			p.UserAgent, p.Stream, p.node, p.ID, p.Opened.Format(stamp), p.Last.Format(stamp), p.Connected), bound}
	}
	d.log.mu.Lock()
	defer d.log.mu.Unlock()
	d.log.checks++
	d.log.most = max(d.log.most, len(plays))
	d.log.apart = max(d.log.apart, len(empty)+len(uncounted))
	d.log.seat.look(now, less, func(what string, age time.Duration) {
		d.log.violated("a seat without a player for %s: %s", age.Round(time.Millisecond), what)
	})
	d.log.play.look(now, more, func(what string, age time.Duration) {
		d.log.violated("a player without a seat for %s: %s", age.Round(time.Millisecond), what)
		d.log.suspects = append(d.log.suspects, strings.Fields(what)[0])
	})
}

const stamp = "15:04:05.000"

// equal waits until ledger and nodes are the same, which they must be within the bound.
func (d *day) equal(what string, playing bool) {
	d.t.Helper()
	b := d.bound()
	began := time.Now()
	deadline := began.Add(max(d.hold()+seatMargin+daySlack, b.seat, b.play))
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		plays := d.plays()
		seats, err := d.seats(context.Background())
		if err != nil {
			d.t.Fatal(err)
		}
		zapped, err := d.zapped(context.Background())
		if err != nil {
			d.t.Fatal(err)
		}
		empty, uncounted, unasked := difference(seats, plays)
		robbed, uncounted := stolen(uncounted, zapped)
		if len(robbed)*100 > len(plays)*3 {
			d.t.Errorf("%d of %d players lost their seat to what they had left", len(robbed), len(plays))
		}
		if len(empty)+len(uncounted) == 0 && playing == (len(seats) > 0) {
			d.t.Logf("%s after %s: %d seats, %d play, %d of them unasked, %d robbed", what, time.Since(began).Round(time.Millisecond), len(seats), len(plays), len(unasked), len(robbed))
			return
		}
		if time.Now().After(deadline) {
			d.t.Errorf("%s: not after %s: %d seats without a player %+v, %d players without a seat %+v", what, time.Since(began).Round(time.Millisecond),
				len(empty), empty[:min(5, len(empty))], len(uncounted), uncounted[:min(5, len(uncounted))])
			return
		}
		<-tick.C
	}
}

// findings are what was seen during the day.
type findings struct {
	mu         sync.Mutex // guards all
	began      time.Time
	counts     map[string]int
	violations []string
	refused    []string // within their right
	suspects   []string // devices that played without a seat
	phases     []string
	checks     int
	most       int // played at once
	apart      int // sessions that differed at one checkpoint
	seat, play *drift
}

func newFindings() *findings {
	return &findings{began: time.Now(), counts: map[string]int{}, seat: newDrift(), play: newDrift()}
}

func (f *findings) count(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[what]++
}

// deny notes one within his right who was refused.
func (f *findings) deny(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused = append(f.refused, time.Now().Format(stamp)+" "+fmt.Sprintf(format, args...))
}

func (f *findings) phase(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phases = append(f.phases, time.Now().Format(stamp)+" "+what)
}

func (f *findings) violation(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.violated(format, args...)
}

// violated is violation for who holds mu.
func (f *findings) violated(format string, args ...any) {
	f.violations = append(f.violations, time.Now().Format(stamp)+" "+fmt.Sprintf(format, args...))
}

func (d *day) report() {
	f := d.log
	f.mu.Lock()
	defer f.mu.Unlock()
	b := d.bound()
	d.t.Logf("%d checkpoints; at most %d played, %d differed at once; a seat without a player for %s at most (bound %s), a player without a seat for %s (bound %s)",
		f.checks, f.most, f.apart, f.seat.worst.Round(time.Millisecond), b.seat, f.play.worst.Round(time.Millisecond), b.play)
	for _, what := range slices.Sorted(maps.Keys(f.counts)) {
		d.t.Logf("%6d %s", f.counts[what], what)
	}
	// The race of zappedSQL's TODO also refuses an opening whose seat was taken back in the same batch.
	if most := 1 + f.counts["opened"]/1000; len(f.refused) > most {
		d.t.Errorf("%d viewers within their right were refused, at most %d by a known race:\n%s", len(f.refused), most, strings.Join(f.refused, "\n"))
	} else if len(f.refused) > 0 {
		d.t.Logf("%d refused by a known race:\n%s", len(f.refused), strings.Join(f.refused, "\n"))
	}
	few(d.t, "against what is promised", f.violations)
	if d.t.Failed() {
		d.t.Logf("what happened:\n%s", strings.Join(f.phases, "\n"))
		d.explainDenials()
	}
	if f.counts["opened"] < d.viewers*2 || f.checks < 20 || f.counts["sharer refused opening"] == 0 {
		d.t.Errorf("too little happened to show anything: %v", f.counts)
	}
}

// explainDenials shows why viewers within their right were refused.
func (d *day) explainDenials() {
	var sharers []string
	for _, h := range d.homes {
		if h.sharer {
			sharers = append(sharers, h.user)
		}
	}
	rows, err := d.pool.Query(d.t.Context(), `
		SELECT to_char(at, 'HH24:MI:SS.MS') || ' ' || user_id || ' on ' || stream || ' of ' || node || ': ' || reason || ' ' || coalesce(steps->-1->>'t', '')
		  FROM usher.decisions WHERE outcome = 'deny' AND user_id <> ALL ($1) ORDER BY at LIMIT 40`, sharers)
	if err != nil {
		d.t.Log(err)
		return
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	d.explainSeats()
	d.t.Logf("denials of those within their right:\n%s (%v)", strings.Join(all, "\n"), err)
}

// explainSeats shows what became of the seats of devices that played without one.
func (d *day) explainSeats() {
	rows, err := d.pool.Query(d.t.Context(), `
		SELECT s.user_agent || ' on ' || s.stream || ' of ' || s.node || ' from ' || to_char(s.opened_at, 'HH24:MI:SS.MS') || ' to '
		       || coalesce(to_char(s.closed_at, 'HH24:MI:SS.MS') || ' ' || s.close_reason, 'now') || ', seen ' || to_char(s.last_seen_at, 'HH24:MI:SS.MS')
		       || coalesce(', ' || d.reason || ' by ' || d.edge, '')
		  FROM usher.sessions s LEFT JOIN usher.decisions d USING (decision_id) WHERE s.user_agent = ANY ($1) ORDER BY s.user_agent, s.opened_at`, d.log.suspects)
	if err != nil {
		d.t.Log(err)
		return
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	d.t.Logf("seats of those who played without one:\n%s (%v)", strings.Join(all, "\n"), err)
}
