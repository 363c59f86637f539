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
}

// keyed are the signs by key of one message, those of foreign nodes left out.
type keyed struct {
	signs   []*usherv1.SeatSign
	arrived time.Time
}

// find looks the sessions up: what is live becomes an item, what is not goes into the reply at
// once. keys are those of the items, in their order.
func (k *keeper) find(ctx context.Context, edge string, in keyed, reply *usherv1.SeatsReply) (items []admission.Item, keys [][]byte, err error) {
	if len(in.signs) == 0 || k.sessions == nil {
		return nil, nil, nil
	}
	asked := make([]pgstore.KeySign, len(in.signs))
	for i, s := range in.signs {
		asked[i] = pgstore.KeySign{
			Key: access.Key(s.GetSessionKey()), Node: s.GetNode(), Age: ageOf(s.GetAgeMs(), in.arrived),
			Returning: s.GetIdsReturn(),
		}
		if s.GetOpenedAgeMs() > 0 {
			asked[i].Opened = ageOf(s.GetOpenedAgeMs(), in.arrived)
		}
	}
	found, err := k.sessions.SessionsByKey(ctx, asked)
	if err != nil {
		return nil, nil, err
	}
	for i, s := range in.signs {
		switch f := found[i]; {
		case f == nil:
			k.metrics.seats.WithLabelValues("unknown").Inc()
			reply.Ended = append(reply.Ended, &usherv1.SeatEnd{SessionKey: s.GetSessionKey()})
		case f.Closed != "":
			k.metrics.seats.WithLabelValues("ended").Inc()
			reply.Ended = append(reply.Ended, &usherv1.SeatEnd{SessionId: f.ID[:], SessionKey: s.GetSessionKey(), Reason: string(f.Closed)})
		default:
			items = append(items, admission.Item{Sign: signOf(edge, f.ID, s, in.arrived)})
			keys = append(keys, s.GetSessionKey())
		}
	}
	return items, keys, nil
}
