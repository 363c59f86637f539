package edge

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/telemetry"
	"usher.internal/services/edge/internal/caller"
)

// Limits of the HTTP server. Callers keep connections for up to a minute; ours live
// longer, or a caller would write into one that we are closing.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 5 * time.Minute
	maxHeaderBytes    = 64 << 10
)

// unknownCaller is the budget and the label of questions that no adapter can read.
const unknownCaller = "unknown"

func (s *Service) newServer() *http.Server {
	return &http.Server{
		Handler: s,
		// net/http would answer OPTIONS * with 200, which is a yes.
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            readHeaderTimeout,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// ServeHTTP answers every question in its caller's dialect, whatever happens: a
// reset or a 5xx would let viewers in at some callers. It is the edge's only handler:
// http.ServeMux would answer an odd path with a redirect.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin, ctx := time.Now(), r.Context()
	kind, name := route(r.URL.Path)
	a := s.adapters[kind]
	if a == nil {
		a = refuser{}
	}
	defer func() {
		if p := recover(); p != nil {
			s.crashed(ctx, w, a, p)
		}
	}()
	if s.draining.Load() {
		// The caller opens its next connection, and finds whoever took over.
		w.Header()["Connection"] = []string{"close"}
	}
	if kind == playlistKind {
		s.servePlaylist(w, r)
		return
	}
	q := &question{asked: begin, method: r.Method, parent: r.Header.Get("Traceparent")}
	q.Region, q.Edge, q.Caller = s.cfg.Region, s.cfg.Name, a.Kind()
	if teller, ok := a.(caller.Reporter); ok && teller.Hears(r) {
		a = refuser{} // a panic must not have the same events sent again for ever
		s.serveEvents(w, r, teller, name, q)
		return
	}
	if r.ContentLength != 0 {
		s.body(w, a)
	}
	d := s.answer(r, a, name, q)
	a.Answer(w, q.node, &d)
	s.metrics.answered(q, &d, time.Since(begin))
}

// body readies the connection for a question with a body. Where the adapter reads none,
// net/http would wait for all of it before it answers; where it does, a body that drips
// must not cost more than the caller's budget.
func (s *Service) body(w http.ResponseWriter, a caller.Adapter) {
	if _, reads := a.(caller.BodyReader); !reads {
		w.Header()["Connection"] = []string{"close"}
		return
	}
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(a.Budget() - answerTime)); err != nil {
		w.Header()["Connection"] = []string{"close"}
	}
}

// answer finds the node, reads the question and decides it.
func (s *Service) answer(r *http.Request, a caller.Adapter, name string, q *question) access.Decision {
	ctx := r.Context()
	peer := peerOf(r.RemoteAddr)
	q.Node = access.Clean(name, access.MaxName)
	q.deadline = q.asked.Add(a.Budget() - answerTime)
	s.settle(q.deadline)
	if q.view = s.waitView(q.deadline); q.view == nil {
		return s.refuse(ctx, q, peer, access.Unavailable,
			access.Step{Name: "policy", Result: "missing", Text: "the edge has not received the policy yet"})
	}
	n, reason, text := s.node(q.view, a, name, peer)
	if n == nil {
		return s.refuse(ctx, q, peer, reason, access.Step{Name: "node", Result: string(reason), Text: text})
	}
	q.node = n
	if n.Control != nil {
		if p := s.pollers.of(n.Name); p != nil {
			p.questioned(s.now())
		}
	}
	q.deadline = q.asked.Add(n.Budget - answerTime)
	if err := a.Parse(r, n, peer, &q.Request); err != nil {
		text := "the question could not be read"
		if bad, ok := errors.AsType[*caller.Bad](err); ok {
			text = bad.Text
		}
		// What was read before the fault must not be stored as if it were sound.
		q.Request = access.Request{Region: q.Region, Edge: q.Edge, Node: q.Node, Caller: q.Caller}
		return s.refuse(ctx, q, peer, access.BadRequest, access.Step{Name: "parse", Result: "bad", Text: text})
	}
	q.Received = q.asked
	q.prefix = prefixOf(q.IP)
	q.Archive = q.Archive.Aged(q.asked)
	q.own, q.rule = q.view.find(q.Stream)
	d := s.decide(ctx, q)
	if q.memory {
		s.remember(ctx, q, &d)
	}
	return d
}

// node finds who asks, and whether the question may come from there and to us.
func (s *Service) node(v *view, a caller.Adapter, name string, peer netip.Addr) (n *caller.Node, reason access.Reason, text string) {
	n = v.nodes[name]
	switch {
	case n == nil:
		return nil, access.UnknownNode, access.UnknownNode.Text()
	case n.Caller != a.Kind():
		return nil, access.UnknownNode, "the policy lists this node as another kind of caller"
	case n.Edge != "" && n.Edge != s.cfg.Name:
		return nil, access.WrongEdge, "the policy gives node " + n.Name + " to edge " + n.Edge
	case !n.Admits(peer):
		return nil, access.WrongSource, access.WrongSource.Text()
	}
	return n, "", ""
}

// refuse answers what the edge refuses alone: counted, and one row an address, node
// and reason a minute.
func (s *Service) refuse(ctx context.Context, q *question, from netip.Addr, reason access.Reason, step access.Step) access.Decision {
	now := s.now()
	node := q.Node
	if reason == access.WrongEdge {
		// The recorder takes no row that names another edge's node; the step does.
		q.Node = ""
	}
	id, fresh := s.refusals.note(refusal{from, node, reason}, now, s.newID)
	d := access.Decision{ID: id, Outcome: access.Deny, Reason: reason, Text: step.Text, Unknown: reason == access.Unavailable}
	if q.view != nil {
		d.Revision = q.view.revision
	}
	q.send(&d)
	if !fresh {
		s.tallies.add(id, now)
		return d
	}
	if !q.IP.IsValid() {
		q.IP = from
	}
	s.journal.add(s.row(q, &d, step))
	s.log.DebugContext(ctx, "question refused", slog.String(telemetry.Caller, q.Caller),
		slog.String(telemetry.Result, string(reason)))
	return d
}

// waitView gives the policy's view, or waits for the first one until the deadline.
func (s *Service) waitView(deadline time.Time) *view {
	if v := s.view.Load(); v != nil {
		return v
	}
	t := time.NewTimer(time.Until(deadline))
	defer t.Stop()
	select {
	case <-s.viewed:
	case <-t.C:
	}
	return s.view.Load()
}

// crashed answers after a panic, if nothing was written yet. It is our fault: somebody
// must look.
func (s *Service) crashed(ctx context.Context, w http.ResponseWriter, a caller.Adapter, p any) {
	s.metrics.crashes.WithLabelValues().Inc()
	s.log.ErrorContext(ctx, "panic while answering a question", slog.String(telemetry.Caller, a.Kind()),
		slog.Any(telemetry.Panic, p), slog.String(telemetry.Stack, string(debug.Stack())))
	d := &access.Decision{ID: s.newID(), Outcome: access.Deny, Reason: access.Unavailable, Unknown: true}
	defer func() {
		if recover() != nil { // it was the adapter's answer that panicked
			refuser{}.Answer(w, nil, d)
		}
	}()
	a.Answer(w, nil, d)
}

// route reads /v1/<caller>/<node> with anything below it.
func route(path string) (kind, node string) {
	rest, ok := strings.CutPrefix(path, "/v1/")
	if !ok {
		return unknownCaller, ""
	}
	kind, rest, _ = strings.Cut(rest, "/")
	node, _, _ = strings.Cut(rest, "/")
	return kind, node
}

// peerOf is the TCP peer without zone and unmapped, or the zero Addr.
func peerOf(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return caller.Plain(ap.Addr())
}

// refuser answers callers that we do not know: 403 is a no to all of them.
type refuser struct{}

var _ caller.Adapter = refuser{}

func (refuser) Kind() string          { return unknownCaller }
func (refuser) Budget() time.Duration { return time.Second }
func (refuser) Parse(*http.Request, *caller.Node, netip.Addr, *access.Request) error {
	return caller.Badf("no adapter reads this caller")
}

func (refuser) Answer(w http.ResponseWriter, _ *caller.Node, d *access.Decision) {
	caller.Common(w.Header(), d)
	caller.Empty(w, http.StatusForbidden)
}
