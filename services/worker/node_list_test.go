package worker

import (
	"errors"
	"testing"
	"time"

	"usher.internal/libs/pgstore"
	"usher.internal/schemas/proto/usherv1"
)

// TestAListFreesTheSeatsThatItDoesNotShow: of its own node alone, only those that were silent, and only
// where it shows at least one, so that its ids are those that the node asks with.
func TestAListFreesTheSeatsThatItDoesNotShow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		node         string
		shown        bool
		silent       bool
		fault        error
		live, absent int
	}{
		"silent and not shown":   {node: "n1", shown: true, silent: true, live: 1, absent: 1},
		"showed life since":      {node: "n1", shown: true, live: 2},
		"a list of other ids":    {node: "n1", silent: true, live: 2},
		"another edge's node":    {node: "foreign", shown: true, silent: true, live: 2},
		"no node":                {shown: true, silent: true, live: 2},
		"Postgres does not tell": {node: "n1", shown: true, silent: true, fault: errors.New("away"), live: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			plays, left := ask(), ask()
			one, two := b.answer(within(t, time.Second), "e1", plays), b.answer(within(t, time.Second), "e1", left)
			k := b.keeper()
			k.sessions = &fakeSessions{err: c.fault, seats: []pgstore.NodeSeat{
				{Session: idOf(t, one.GetSessionId()), Key: [16]byte(plays.GetSessionKey()), Silent: true},
				{Session: idOf(t, two.GetSessionId()), Key: [16]byte(left.GetSessionKey()), Silent: c.silent},
			}}
			list := &usherv1.NodeList{Node: c.node, Keys: [][]byte{{1, 2, 3}, make([]byte, 16)}}
			if c.shown {
				list.Keys = append(list.Keys, plays.GetSessionKey())
			}
			r := k.renew(within(t, time.Second), "e1", &usherv1.SeatsRequest{List: list})
			if live := len(b.model.Live()); live != c.live || int(r.GetAbsent()) != c.absent || r.GetOk() != (c.fault == nil) {
				t.Errorf("%d live, reply %v; want %d live and %d absent", live, r, c.live, c.absent)
			}
		})
	}
}
