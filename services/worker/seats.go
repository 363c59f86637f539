package worker

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/policy"
	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
)

// signsAtOnce is how many signs of one message wait for the group commit together.
const signsAtOnce = 256

// maxAge is the oldest sign of life that is told apart: no seat lives longer without one.
const maxAge = 7 * 24 * time.Hour

// signer applies signs of life; *admission.Committer is one.
type signer interface {
	DoAll(ctx context.Context, items []admission.Item) ([]admission.Result, error)
}

// keeper renews and closes seats. It is safe for concurrent use.
type keeper struct {
	policies *policies
	ledger   signer
	sessions Sessions // nil: signs by key find nothing
	teller   teller
	log      *slog.Logger
	metrics  *metrics
}

// renew is the handler of usher.v1.seats. When the ledger is away the reply is not ok: the
// edge keeps its totals and its ages and sends them again.
func (k *keeper) renew(ctx context.Context, edge string, m *usherv1.SeatsRequest) (reply *usherv1.SeatsReply) {
	defer func() {
		if v := recover(); v != nil {
			k.log.ErrorContext(ctx, "renewing seats panicked",
				slog.String(telemetry.Edge, edge), slog.Any(telemetry.Panic, v), slog.String(telemetry.Stack, string(debug.Stack())))
			reply = &usherv1.SeatsReply{}
		}
	}()
	began := time.Now()
	ctx, cancel := newBudget(ctx, began).forAnswer(ctx)
	defer cancel()
	items, by := k.items(edge, m, began)
	reply = &usherv1.SeatsReply{Ok: true}
	found, from, err := k.find(ctx, edge, by, reply)
	if l := m.GetList(); l != nil && err == nil {
		if err = k.free(ctx, edge, l, began, reply); err != nil {
			k.log.DebugContext(ctx, "a node's list was not compared", slog.String(telemetry.Edge, edge), slog.Any(telemetry.Error, err))
		}
	}
	var results []admission.Result
	if first := len(items); err == nil && first+len(found) > 0 {
		items = append(items, found...)
		results, err = k.apply(ctx, items)
		from = append(make([]asked, first), from...)
	}
	if err != nil {
		k.metrics.seats.WithLabelValues("unavailable").Add(float64(len(items) + len(by.signs)))
		k.log.DebugContext(ctx, "seats were not renewed", slog.String(telemetry.Edge, edge), slog.Any(telemetry.Error, err))
		return &usherv1.SeatsReply{}
	}
	k.reply(reply, items, from, results)
	return reply
}

// apply sends the items in parts, one after another: a long message must not fill the queue
// of the group commit, in which questions wait too.
func (k *keeper) apply(ctx context.Context, items []admission.Item) ([]admission.Result, error) {
	results := make([]admission.Result, 0, len(items))
	for part := range slices.Chunk(items, signsAtOnce) {
		r, err := k.ledger.DoAll(ctx, part)
		// A bad item is one of its own; the others have been applied.
		if err != nil && !errors.Is(err, admission.ErrBadItem) {
			return nil, err
		}
		results = append(results, r...)
	}
	return results, nil
}

// items reads the signs. One that is malformed, or of a node that belongs to another edge,
// is left out: it moves nothing, and its neighbours are not affected. Those by key are given apart.
func (k *keeper) items(edge string, m *usherv1.SeatsRequest, arrived time.Time) ([]admission.Item, keyed) {
	var snapshot *policy.Snapshot
	if j := k.policies.judge(); j != nil {
		snapshot = j.snapshot
		j.release()
	}
	items := make([]admission.Item, 0, len(m.GetSigns()))
	by := keyed{arrived: arrived}
	for i, s := range m.GetSigns() {
		session, err := uuid.FromBytes(s.GetSessionId())
		byKey := len(s.GetSessionId()) == 0 && len(s.GetSessionKey()) == len(access.Key{}) && s.GetNode() != ""
		if (err != nil || session == uuid.Nil) && !byKey {
			k.metrics.seats.WithLabelValues("malformed").Inc()
			continue
		}
		if foreignNode(snapshot, edge, s.GetNode()) {
			k.metrics.seats.WithLabelValues("foreign").Inc()
			continue
		}
		if byKey {
			by.signs, by.places = append(by.signs, s), append(by.places, int32(i+1))
			continue
		}
		items = append(items, admission.Item{Sign: signOf(edge, session, s, arrived)})
	}
	return items, by
}

func signOf(edge string, session uuid.UUID, s *usherv1.SeatSign, arrived time.Time) *admission.Sign {
	return &admission.Sign{
		Session:  session,
		Age:      ageOf(s.GetAgeMs(), arrived),
		Edge:     edge,
		Close:    s.GetClose(),
		Reason:   closeReason(s),
		Requests: max(s.GetRequests(), 0),
		Bytes:    max(s.GetBytes(), 0),
	}
}

// ageOf is how old by now something is that was ms milliseconds old when the message came.
func ageOf(ms int64, arrived time.Time) time.Duration {
	return time.Duration(min(max(ms, 0), maxAge.Milliseconds()))*time.Millisecond + time.Since(arrived)
}

// closeReason is idle, stopped or id_reused: an edge cannot say that a session was killed or evicted.
func closeReason(s *usherv1.SeatSign) access.CloseReason {
	switch r := access.CloseReason(s.GetReason()); {
	case !s.GetClose():
		return ""
	case r == access.CloseIdle, r == access.CloseIDReused:
		return r
	default:
		return access.CloseStopped
	}
}

// foreignNode says whether the policy gives the node to another edge. A node that the
// policy no longer lists is nobody's: its running sessions may end.
func foreignNode(s *policy.Snapshot, edge, node string) bool {
	if s == nil || node == "" {
		return false
	}
	n := s.Nodes[node]
	return n != nil && n.Edge != "" && n.Edge != edge
}

// reply adds what became of the items; from are the signs of those by key, empty for those by id.
func (k *keeper) reply(reply *usherv1.SeatsReply, items []admission.Item, from []asked, results []admission.Result) {
	for i, r := range results {
		session := items[i].Sign.Session
		switch {
		case r.Err != nil || r.Session != session:
			// Nothing is known of this one: it is sent again with the next message.
			k.metrics.seats.WithLabelValues("bad").Inc()
			continue
		case r.Live:
			k.metrics.seats.WithLabelValues("live").Inc()
		default:
			k.metrics.seats.WithLabelValues("ended").Inc()
			reply.Ended = append(reply.Ended, from[i].end(session[:], r.Closed))
		}
		k.teller.tell(r.Ended)
	}
}
