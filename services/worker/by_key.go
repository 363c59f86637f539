package worker

import (
	"context"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/pgstore"
	"usher.internal/schemas/proto/usherv1"
)

// Sessions finds the sessions that nodes speak of and their edges do not know; *pgstore.Store is one.
type Sessions interface {
	SessionsByKey(ctx context.Context, signs []pgstore.KeySign) ([]*pgstore.KeyedSession, error)
	NodeSeats(ctx context.Context, node string, age time.Duration) ([]pgstore.NodeSeat, error)
}

// keyed are the signs by key of one message, those of foreign nodes left out.
type keyed struct {
	signs   []*usherv1.SeatSign
	places  []int32 // in the message, from 1
	arrived time.Time
}

// asked is the sign that an item came from, where it was one by key.
type asked struct {
	key   []byte
	place int32
}

func (a asked) end(session []byte, why access.CloseReason) *usherv1.SeatEnd {
	return &usherv1.SeatEnd{SessionId: session, SessionKey: a.key, Sign: a.place, Reason: string(why)}
}

// find looks the sessions up: what is live becomes an item, what is not goes into the reply at
// once. from are the signs of the items, in their order.
func (k *keeper) find(ctx context.Context, edge string, in keyed, reply *usherv1.SeatsReply) (items []admission.Item, from []asked, err error) {
	if len(in.signs) == 0 || k.sessions == nil {
		return nil, nil, nil
	}
	signs := make([]pgstore.KeySign, len(in.signs))
	for i, s := range in.signs {
		signs[i] = pgstore.KeySign{
			Key: access.Key(s.GetSessionKey()), Node: s.GetNode(), Age: ageOf(s.GetAgeMs(), in.arrived),
			Returning: s.GetIdsReturn(),
		}
		if s.GetOpenedAgeMs() > 0 {
			signs[i].Opened = ageOf(s.GetOpenedAgeMs(), in.arrived)
		}
	}
	found, err := k.sessions.SessionsByKey(ctx, signs)
	if err != nil {
		return nil, nil, err
	}
	for i, s := range in.signs {
		by := asked{s.GetSessionKey(), in.places[i]}
		switch f := found[i]; {
		case f == nil:
			k.metrics.seats.WithLabelValues("unknown").Inc()
			reply.Ended = append(reply.Ended, by.end(nil, ""))
		case f.Closed != "":
			k.metrics.seats.WithLabelValues("ended").Inc()
			reply.Ended = append(reply.Ended, by.end(f.ID[:], f.Closed))
		default:
			items, from = append(items, admission.Item{Sign: signOf(edge, f.ID, s, in.arrived)}), append(from, by)
		}
	}
	return items, from, nil
}
