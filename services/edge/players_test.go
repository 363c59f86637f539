package edge

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/admission/admissiontest"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/edgetest"
)

// room is some edges with one ledger behind them, and players that do what players do in the
// field, by a clock that moves as fast as nothing happens. Each stream is asked about at the edge
// that its name says ("b@2" at the third one), as where channels are spread over servers.
type room struct {
	t      *testing.T
	edges  []*bench
	ledger *admissiontest.Model
	keyer  *access.Keyer
	limit  int
	mode   access.Mode

	sweepers []*sweeper
	playing  []interface{ tick() }
	numbers  int // of sessions at their servers

	mu    sync.Mutex // guards still: how many questions were of one that plays on
	still int
}

// roomLease is what workers give here.
const roomLease = 3 * time.Minute

// inRoom runs a test in a room of its own.
func inRoom(t *testing.T, edges, limit int, mode access.Mode, f func(r *room)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &room{t: t, ledger: admissiontest.NewModel(), keyer: testKeyer(t), limit: limit, mode: mode}
		for range edges {
			b := setup(t)
			p := projection()
			p.Nodes[0].Device = "query:mac" // Astra
			p.Nodes = append(p.Nodes, &usherv1.NodeView{Name: "app", Caller: "nginx", From: []string{"10.2.0.1/32"}, IdleMs: 60_000, Device: "query:device"})
			b.setPolicy(t, p)
			b.workers.Decide, b.workers.Seats = r.decide, r.signs
			r.edges, r.sweepers = append(r.edges, b), append(r.sweepers, &sweeper{s: b.Service})
		}
		f(r)
	})
}

// decide is a worker: whoever brings a token "user" or "user.what" is that user.
func (r *room) decide(_ context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
	user, _, _ := strings.Cut(m.GetToken(), ".")
	if user == "" {
		return edgetest.Deny(m, string(access.NoToken)), nil
	}
	o := &admission.Open{
		Record: admission.Record{
			ID: timed7(idOf(m.GetId())), Edge: m.GetEdge(), Node: m.GetNode(), Caller: m.GetCaller(), Stream: m.GetStream(), Realm: "main", User: user,
			IP: netip.MustParseAddr(m.GetIp()), UserAgent: m.GetUserAgent(),
		},
		Reason: access.Granted, Session: uuid.New(), Running: idOf(m.GetSessionId()), Replaces: idOf(m.GetReplaces()),
		Key: access.Key(m.GetSessionKey()), Subject: r.keyer.Key("user", user), Token: r.keyer.Fingerprint(m.GetToken()), Device: m.GetDevice(),
		StillPlaying: m.GetStillPlaying(), Limit: r.limit, Mode: r.mode, Seat: roomLease + time.Minute, Lease: roomLease,
	}
	if o.StillPlaying {
		r.mu.Lock()
		r.still++
		r.mu.Unlock()
	}
	results, err := r.ledger.Apply(context.Background(), []admission.Item{{Open: o}})
	if err != nil || results[0].Err != nil {
		r.t.Errorf("the ledger: %v, %v", err, results)
		return nil, edgetest.ErrAway
	}
	r.tell(results[0].Ended, m)
	res := results[0]
	reply := &usherv1.AuthReply{
		Status: usherv1.AuthReply_STATUS_DECIDED, DecisionId: res.Decision[:], Outcome: string(res.Outcome), Reason: string(res.Reason),
		Realm: "main", User: user, PolicyRevision: 1, LeaseMs: roomLease.Milliseconds(),
	}
	if res.Outcome == access.Allow {
		reply.SessionId = res.Session[:]
	}
	return reply, nil
}

// timed7 is the id at the bubble's time: package uuid never goes back to it from the real one.
func timed7(id uuid.UUID) uuid.UUID {
	ms := uint64(time.Now().UnixMilli())
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}

// tell lets every edge hear who was ended.
func (r *room) tell(ended []admission.Ended, m *usherv1.AuthRequest) {
	for _, e := range ended {
		if e.Reason == access.CloseZapped && m != nil {
			e.By, e.ByBelief = access.Key(m.GetSessionKey()), m.GetCameBack()
		}
		for _, b := range r.edges {
			b.control(e.Control())
		}
	}
}

// signs is a worker that takes signs of life.
func (r *room) signs(m *usherv1.SeatsRequest) (*usherv1.SeatsReply, error) {
	reply := &usherv1.SeatsReply{Ok: true}
	for _, g := range m.GetSigns() {
		results, err := r.ledger.Apply(context.Background(), []admission.Item{{Sign: &admission.Sign{
			Session: idOf(g.GetSessionId()), Age: time.Duration(g.GetAgeMs()) * time.Millisecond, Close: g.GetClose(),
			Reason: access.CloseReason(g.GetReason()), Requests: g.GetRequests(), Edge: m.GetEdge(),
		}}})
		if err != nil {
			return nil, err
		}
		if !results[0].Live {
			reply.Ended = append(reply.Ended, &usherv1.SeatEnd{SessionId: g.GetSessionId(), Reason: string(results[0].Closed)})
		}
	}
	return reply, nil
}

// pass lets time go by: players play, and edges tell signs of life.
func (r *room) pass(d time.Duration) {
	r.t.Helper()
	for range d / time.Second {
		time.Sleep(time.Second)
		for _, p := range r.playing {
			p.tick()
		}
		for i, w := range r.sweepers {
			w.round(r.t.Context(), r.edges[i].now(), false)
		}
		if n := len(r.seats()); r.limit > 0 && n > r.limit {
			r.t.Fatalf("%d seats, the limit is %d", n, r.limit)
		}
	}
}

// seats are the streams that hold one, in the order of their opening.
func (r *room) seats() (streams []string) {
	for _, h := range r.ledger.Seats() {
		streams = append(streams, strings.TrimPrefix(h.Stream, "hls/"))
	}
	return streams
}

// wantSeats holds the live seats to these streams, in any order.
func (r *room) wantSeats(when string, want ...string) {
	r.t.Helper()
	got := r.seats()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		r.t.Errorf("%s: seats on %v, want %v", when, got, want)
	}
}

// wantCourtesy: nobody was taken for one who plays two streams at once.
func (r *room) wantCourtesy() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.still != 0 {
		r.t.Errorf("%d questions were asked as still playing, want none", r.still)
	}
}

// edge is where a stream is asked about.
func (r *room) edge(stream string) *bench {
	_, at, ok := strings.Cut(stream, "@")
	if !ok {
		return r.edges[0]
	}
	return r.edges[int(at[0]-'0')%len(r.edges)]
}

// hls is an HLS player behind nginx's auth_request. It opens a playlist with its token and fetches
// what that names without it.
type hls struct {
	r                         *room
	user, node, ip, agent, id string
	// bearer: its token stands on each request.
	bearer bool
	// every so many seconds it fetches a segment.
	every int
	// trail is how long it fetches what it had begun of a stream that it left.
	trail time.Duration

	at       int
	current  string
	trailing map[string]time.Time
	refused  []string
	lenient  bool // to be refused is no fault
}

// hls makes a player and lets it play as time passes.
func (r *room) hls(user string, change ...func(p *hls)) *hls {
	p := &hls{r: r, user: user, node: "web1", ip: "203.0.113.7", agent: "Box/1.0", every: 2, trailing: map[string]time.Time{}}
	for _, f := range change {
		f(p)
	}
	r.playing = append(r.playing, p)
	return p
}

// zap opens another stream, before it leaves the one that it plays.
func (p *hls) zap(stream string) {
	p.r.t.Helper()
	p.fetch(stream, "index.m3u8", true)
	if p.current != "" && p.current != stream {
		p.trailing[p.current] = time.Now().Add(p.trail)
	}
	delete(p.trailing, stream)
	p.current = stream
	p.fetch(stream, "720p/list.m3u8", p.bearer)
}

// tick is a second of playing.
func (p *hls) tick() {
	p.at++
	if p.at%p.every != 0 {
		return
	}
	if p.current != "" {
		p.fetch(p.current, "720p/list.m3u8", p.bearer)
		p.fetch(p.current, "720p/1.ts", p.bearer)
	}
	for stream, until := range p.trailing {
		if time.Now().After(until) {
			delete(p.trailing, stream)
			continue
		}
		p.fetch(stream, "720p/2.ts", p.bearer)
	}
}

// fetch asks for one file, and says whether it was let in.
func (p *hls) fetch(stream, file string, token bool) bool {
	p.r.t.Helper()
	uri := "/hls/" + stream + "/" + file
	if token {
		uri += "?token=" + p.user + "." + stream
		if p.id != "" {
			uri += "&device=" + p.id
		}
	}
	q := nginxRequest(p.node, uri, p.ip, p.agent)
	res := p.r.edge(stream).ask(q)
	if res.StatusCode == http.StatusOK {
		return true
	}
	what := time.Now().Format(time.TimeOnly) + " " + stream + "/" + file + " " + res.Header.Get("X-Usher-Reason")
	p.refused = append(p.refused, what)
	if !p.lenient {
		p.r.t.Errorf("refused: %s", what)
	}
	return false
}
