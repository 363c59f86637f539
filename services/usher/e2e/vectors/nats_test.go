package vectors_test

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/bus"
	"usher.internal/libs/decide/decidetest"
	"usher.internal/schemas/proto/usherv1"
)

// leaseSlack is how much of a lease the question's own way may take: the clock runs.
const leaseSlack = 3 * time.Second

// overNATS puts the question to the worker as an edge does.
func (c *chain) overNATS(t *testing.T, q *decidetest.Question, device string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
	defer cancel()
	m := c.message(q, device)
	reply, err := c.asker.Ask(ctx, c.region, "edge0", m)
	for errors.Is(err, bus.ErrNoWorker) && ctx.Err() == nil {
		reply, err = c.asker.Ask(ctx, c.region, "edge0", m) // its subscription is on its way
	}
	if err != nil || reply.GetStatus() != usherv1.AuthReply_STATUS_DECIDED {
		t.Errorf("no decision: %v, %v", reply.GetStatus(), err)
		return answer{}
	}
	if reply.GetOutcome() == string(access.Allow) {
		c.opened(q.Session, reply.GetSessionId())
	}
	id, err := uuid.FromBytes(reply.GetDecisionId())
	if err != nil {
		t.Errorf("the answer's id: %v", err)
	}
	return answer{
		outcome: reply.GetOutcome(), reason: reply.GetReason(), text: reply.GetText(), decision: id, row: c.find(t, id, reply.GetReason()),
		check: func(t *testing.T, w *decidetest.Want) { c.checkReply(t, q, w, reply) },
	}
}

func (c *chain) message(q *decidetest.Question, device string) *usherv1.AuthRequest {
	req, id := q.Request(), uuid.Must(uuid.NewV7())
	key := c.keyer.Key("vector", cmp.Or(req.CallerSession, device))
	if q.Session != "" {
		device = req.IP.String() + " " + req.UserAgent
	}
	caller := ""
	if n := c.snapshot.Nodes[req.Node]; n != nil {
		caller = n.Caller
	}
	m := &usherv1.AuthRequest{
		Id: id[:], Region: c.region, Edge: "edge0", Node: req.Node, Caller: caller, SessionKey: key[:],
		Stream: req.Stream, Token: req.Token, Query: req.Query, Path: req.Path, Host: req.Host, Ip: req.IP.String(),
		UserAgent: req.UserAgent, Referer: req.Referer, Device: device, Channel: req.Channel, CallerSession: req.CallerSession,
		Archive: archive(req.Archive), ReceivedUnixUs: time.Now().UnixMicro(), KnownStream: req.Known, Action: string(req.Action),
	}
	if q.Running {
		m.SessionId = req.Session[:]
		if id := c.sessions[q.Session]; id != nil {
			m.SessionId = id
		}
	}
	return m
}

// archive is the recorded part as an edge sends it.
func archive(a access.Archive) *usherv1.Archive {
	kind, ok := map[access.ArchiveKind]usherv1.Archive_Kind{
		access.Range: usherv1.Archive_KIND_RANGE, access.Piece: usherv1.Archive_KIND_RANGE, access.From: usherv1.Archive_KIND_FROM,
		access.Back: usherv1.Archive_KIND_BACK, access.Unknown: usherv1.Archive_KIND_UNSPECIFIED,
	}[a.Kind]
	if !ok {
		return nil
	}
	return &usherv1.Archive{Kind: kind, Start: a.Start, Length: a.Length}
}

// opened remembers the session that a caller's own one was given.
func (c *chain) opened(session string, id []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions[session] = id
}

// keeps says that whoever is behind the running session is whom the ledger has, or a check's last
// word, in which a no may stand by now or not.
func keeps(q *decidetest.Question) bool { return q.Running && q.Want.Unavailable && q.Want.User == "" }

func (c *chain) checkReply(t *testing.T, q *decidetest.Question, w *decidetest.Want, r *usherv1.AuthReply) {
	t.Helper()
	if !strings.Contains(r.GetText(), w.Text) || r.GetText() == "" {
		t.Errorf("text = %q, want %q in it", r.GetText(), w.Text)
	}
	decidetest.HoldsNoSecrets(t, q.Request(), r.GetText(), nil)
	user, name := w.User, w.SessionName
	if keeps(q) {
		user, name = r.GetUser(), r.GetSessionName()
	}
	if r.GetLocation() != w.Location || r.GetUser() != user || r.GetSessionName() != name && w.Outcome == "allow" {
		t.Errorf("location %q, user %q, session name %q; want %q, %q, %q",
			r.GetLocation(), r.GetUser(), r.GetSessionName(), w.Location, w.User, w.SessionName)
	}
	limit := w.Told
	if limit == nil && !w.Shadow { // in a trial the caller is told another than is counted
		limit = w.Limit
	}
	if limit != nil && int(r.GetMaxSessions()) != max(*limit, 0) {
		t.Errorf("limit = %d, want %d", r.GetMaxSessions(), max(*limit, 0))
	}
	lease := time.Duration(r.GetLeaseMs()) * time.Millisecond
	if want := w.Lease.Duration(); want != 0 && (lease > want+leaseSlack/10 || lease < want-leaseSlack) {
		t.Errorf("lease = %v, want %v", lease, want)
	}
}
