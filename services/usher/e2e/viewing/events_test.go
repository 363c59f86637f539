package viewing_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"usher.internal/libs/pgstore"
	"usher.internal/libs/telemetry"
)

const eventsPolicy = `
version: 1
defaults: {on_unavailable: deny, lease: 4s, idle: 2s}
nodes:
  fl1: {caller: flussonic, from: [127.0.0.1], budget: 10s}
  astra1: {caller: astra, from: [127.0.0.1], budget: 10s}
  elsewhere: {caller: flussonic, from: [10.9.9.9]}
streams:
  - {match: "**", auth: allow}
`

// played is a session at a node, as it really was.
type played struct {
	node, id, stream string
	token            string
	opened, ended    time.Time
	bytes            int64
	events           []string  // but for the end
	session          uuid.UUID // its id here
	reused           bool      // its node gave its id to another one before its end was told
}

// over is what is kept of a session that has ended.
type over struct {
	reason, detail, country string
	bytes, playing          int64
	closed                  time.Time
}

// end is the event that says so.
func (p *played) end() string {
	if p.node == "astra1" {
		return fmt.Sprintf(`{"client_id": %s, "channel_id": %q, "addr": "203.0.113.9", "uptime": %.3f, "bytes": %d, "closed_at": %d, "reason": "closed", "country": "DE"}`,
			p.id, p.stream, p.ended.Sub(p.opened).Seconds(), p.bytes, p.ended.UnixMilli())
	}
	return p.event("play_closed", p.ended, p.bytes, p.ended.Sub(p.opened).Milliseconds(), `, "country": "DE", "reason": {"code": "closed"}`)
}

func (p *played) event(name string, at time.Time, bytes, millis int64, more string) string {
	field := map[string]string{"play_closed": "closed_at", "play_updated": "updated_at"}[name]
	if field == "" {
		field = "started_at"
	}
	return fmt.Sprintf(`{"event": %q, "id": %q, "media": %q, "type": "play", "utc_ms": %d, %q: %d, "opened_at": %d, "bytes": %d, "duration": %.3f%s}`,
		name, p.id, p.stream, at.UnixMilli(), field, at.UnixMilli(), p.opened.UnixMilli(), bytes, float64(millis)/1000, more)
}

// opens asks for the session at an edge, as its node does.
func (c *cluster) opens(p *played, edge string) {
	c.t.Helper()
	p.opened = time.Now()
	r := viewer{node: p.node, stream: p.stream, ip: "203.0.113.9", agent: "box " + p.stream, session: p.id, token: p.token}.astra(edge)
	if p.node == "fl1" {
		r = get(edge + "/v1/flussonic/fl1?" + url.Values{"name": {p.stream}, "proto": {"hls"}, "ip": {"203.0.113.9"}, "token": {p.token},
			"request_type": {"new_session"}, "session_id": {p.id}, "user_agent": {"box " + p.stream}}.Encode())
	}
	a := c.do(r)
	c.want(p.node+"'s "+p.stream, a, http.StatusOK, "")
	row, err := c.store.Decision(context.Background(), a.decision)
	must(c.t, err)
	if row == nil || row.Session == nil {
		c.t.Fatalf("the answer for %s has no session", p.stream)
	}
	p.session = *row.Session
}

// deliver posts events to an edge; it may be done side by side.
func (c *cluster) deliver(edge, node string, events ...string) {
	kind := "flussonic"
	if node == "astra1" {
		kind = "astra"
	}
	body := "[" + strings.Join(events, ",") + "]"
	if len(events) == 1 {
		body = events[0]
	}
	res, err := c.client.Post(edge+"/v1/"+kind+"/"+node+"/events", "application/json", strings.NewReader(body))
	if err != nil {
		c.t.Errorf("events: %v", err)
		return
	}
	_ = res.Body.Close() // it is empty
	if res.StatusCode != http.StatusOK {
		c.t.Errorf("events: status %d", res.StatusCode)
	}
}

// scatter delivers events in any order, some of them twice, in arrays of any size, to both edges.
func (c *cluster) scatter(rnd *rand.Rand, node string, events []string) {
	events = append(events, events[:len(events)/3]...)
	rnd.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	var delivering sync.WaitGroup
	for len(events) > 0 {
		n := min(1+rnd.IntN(9), len(events))
		part := append(slices.Clone(events[:n]), `{"event": "play_closed"}`, `17`, `{"event": "stream_started"}`)
		events = events[n:]
		edge := c.edges[rnd.IntN(len(c.edges))]
		delivering.Go(func() { c.deliver(edge, node, part...) })
	}
	delivering.Wait()
}

// overs are the sessions that have ended.
func (c *cluster) overs(db *pgxpool.Pool) map[uuid.UUID]over {
	c.t.Helper()
	rows, err := db.Query(context.Background(), `SELECT session_id, close_reason, COALESCE(close_detail, ''), COALESCE(country, ''), bytes,
		COALESCE(playing_ms, 0), closed_at FROM usher.session_history`)
	must(c.t, err)
	defer rows.Close()
	all := map[uuid.UUID]over{}
	for rows.Next() {
		var id [16]byte
		var o over
		must(c.t, rows.Scan(&id, &o.reason, &o.detail, &o.country, &o.bytes, &o.playing, &o.closed))
		if _, twice := all[id]; twice {
			c.t.Errorf("session %s ended twice", uuid.UUID(id))
		}
		all[id] = o
	}
	must(c.t, rows.Err())
	return all
}

// settles waits until the rows of all of them say how they ended.
func (c *cluster) settles(db *pgxpool.Pool, what string, groups ...[]*played) {
	c.t.Helper()
	var wrong []string
	defer func() {
		if c.t.Failed() {
			c.t.Log(strings.Join(wrong, "\n"))
		}
	}()
	c.eventually(patience, what, func() bool {
		wrong = wrong[:0]
		all := c.overs(db)
		for _, p := range slices.Concat(groups...) {
			want := over{"stopped", "closed", "DE", p.bytes, p.ended.Sub(p.opened).Milliseconds(), p.ended}
			got := all[p.session]
			if p.reused { // closed when its id came again
				want.reason, want.closed = "id_reused", got.closed
			}
			// Milliseconds are rounded on the way.
			if got.closed.Sub(want.closed).Abs() < 5*time.Millisecond {
				got.closed = want.closed
			}
			if got.playing-want.playing <= 1 && want.playing-got.playing <= 1 {
				got.playing = want.playing
			}
			if got != want {
				wrong = append(wrong, fmt.Sprintf("%s of %s: %+v, want %+v", p.stream, p.node, got, want))
			}
		}
		return len(wrong) == 0
	})
}

// unasked is how many reports were of somebody who plays and never asked.
func (c *cluster) unasked() (n float64) {
	for _, m := range c.edgeMetrics {
		families, err := m.Gather()
		must(c.t, err)
		for _, f := range families {
			for _, s := range f.GetMetric() {
				if f.GetName() == telemetry.EdgeReports().Name && strings.Contains(s.String(), `value:"unasked"`) {
					n += s.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

// TestSessionsEndAsTheirNodesSay: forty sessions of Flussonic and twenty of an Astra that counts from
// the beginning again; their events come in any order, twice, late, or not, to the edge that knows them and to one that does
// not. Each ends once, by its own end, and nobody else's.
func TestSessionsEndAsTheirNodesSay(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 2, workers: 2, policy: eventsPolicy})
	db, err := pgxpool.New(t.Context(), c.dsn)
	must(t, err)
	t.Cleanup(db.Close)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))

	told, lost, again, after := c.play(rnd)
	var ends []string
	for _, p := range told {
		ends = append(append(ends, p.events...), p.end())
	}
	for _, p := range lost {
		ends = append(ends, p.events...)
	}
	c.scatter(rnd, "fl1", ends)
	// The ends of the first ten come when their numbers have been given again.
	var late, own []string
	for _, p := range again {
		late = append(late, p.end())
	}
	for _, p := range after {
		own = append(own, p.end())
	}
	c.scatter(rnd, "astra1", late)

	c.settles(db, "what was told is kept", told, again)
	for _, p := range after {
		if rows := c.live(pgstore.SessionFilter{Stream: p.stream, Node: "astra1"}); len(rows) != 1 || rows[0].ID != p.session {
			t.Errorf("%s: live %v, want the session that has the number now", p.stream, rows)
		}
	}
	c.scatter(rnd, "astra1", own)
	c.settles(db, "the new ones end too", after)

	// Of these nothing more was heard: they ended by their silence. Then their ends come after all.
	c.eventually(patience, "the silent are closed", func() bool { return len(c.overs(db)) == len(told)+len(lost)+len(again)+len(after) })
	all := c.overs(db)
	ends = nil
	for _, p := range lost {
		if o := all[p.session]; o.reason != "idle" || o.detail != "" || o.bytes != p.bytes/2 {
			t.Errorf("%s: %+v, want it idle, with half its bytes", p.stream, o)
		}
		ends = append(ends, p.end())
	}
	c.scatter(rnd, "fl1", ends)
	c.settles(db, "late ends complete their rows", told, lost, again, after)
	before := c.overs(db)
	c.scatter(rnd, "fl1", ends)
	c.scatter(rnd, "astra1", append(late, own...))
	stranger := played{node: "fl1", id: uuid.NewString(), stream: "never-asked"}
	c.deliver(c.edges[0], "fl1", stranger.event("play_opened", time.Now(), 0, 0, ""), stranger.event("play_started", time.Now(), 9, 9, ""))
	c.eventually(patience, "playing without having asked is noticed", func() bool {
		return c.unasked() == 1
	})
	if again := c.overs(db); !maps.Equal(before, again) {
		t.Error("what was told again changed a row")
	}
	if live := c.live(pgstore.SessionFilter{}); len(live) != 0 {
		t.Errorf("live = %v, want nobody: who never asked has no seat", live)
	}
}

// play opens everybody, and says what is told of them: fl1's whose end is told, and whose is not; astra1's, and
// those that have the same numbers after them.
func (c *cluster) play(rnd *rand.Rand) (told, lost, again, after []*played) {
	for i := range 40 {
		p := &played{node: "fl1", id: uuid.NewString(), stream: fmt.Sprint("fl-", i), bytes: 2 * (1000 + rnd.Int64N(1e9))}
		c.opens(p, c.edges[0])
		if i%4 == 0 {
			lost = append(lost, p)
			continue
		}
		told = append(told, p)
	}
	for i := range 10 {
		p := &played{node: "astra1", id: fmt.Sprint(1000 + i), stream: fmt.Sprint("a", i), bytes: rnd.Int64N(1e9)}
		c.opens(p, c.edges[0])
		again = append(again, p)
	}
	now := time.Now().Truncate(time.Millisecond)
	for _, p := range slices.Concat(told, lost, again) {
		p.ended = now
	}
	for _, p := range slices.Concat(told, lost) {
		for _, name := range []string{"play_opened", "play_authorized", "play_started", "play_updated"} {
			if name == "play_updated" || rnd.IntN(3) > 0 {
				p.events = append(p.events, p.event(name, p.opened, p.bytes/2, 0, ""))
			}
		}
	}
	c.eventually(patience, "the Astra has restarted", func() bool { return time.Since(now) > time.Second })
	for _, old := range again {
		old.reused = true
		p := &played{node: "astra1", id: old.id, stream: old.stream, token: "after", bytes: rnd.Int64N(1e9)}
		c.opens(p, c.edges[0])
		after = append(after, p)
	}
	for _, p := range after {
		p.ended = time.Now().Truncate(time.Millisecond)
	}
	return told, lost, again, after
}
