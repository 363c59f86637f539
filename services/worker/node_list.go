package worker

import (
	"context"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/policy"
	"usher.internal/schemas/proto/usherv1"
)

// maxAbsent bounds the seats that one list frees: whoever sent it sends it again.
const maxAbsent = 2048

// free gives back the seats of a node that its list does not show.
func (k *keeper) free(ctx context.Context, edge string, l *usherv1.NodeList, arrived time.Time, reply *usherv1.SeatsReply) error {
	var snapshot *policy.Snapshot
	if j := k.policies.judge(); j != nil {
		snapshot = j.snapshot
		j.release()
	}
	items, err := k.absent(ctx, edge, snapshot, l, arrived)
	if err != nil || len(items) == 0 {
		return err
	}
	results, err := k.apply(ctx, items)
	if err != nil {
		return err
	}
	for _, r := range results {
		k.teller.tell(r.Ended)
	}
	k.metrics.seats.WithLabelValues("absent").Add(float64(len(items)))
	reply.Absent = int32(len(items))
	return nil
}

// absent are the seats of a node that its list does not show: viewers who left while no edge looked, or
// whom another edge opened that is gone. A list that shows no seat at all may be of other ids than those that
// the node asks with; it frees none.
func (k *keeper) absent(ctx context.Context, edge string, snapshot *policy.Snapshot, m *usherv1.NodeList, arrived time.Time) ([]admission.Item, error) {
	if m.GetNode() == "" || k.sessions == nil || foreignNode(snapshot, edge, m.GetNode()) {
		return nil, nil
	}
	age := ageOf(m.GetAgeMs(), arrived)
	seats, err := k.sessions.NodeSeats(ctx, m.GetNode(), age)
	if err != nil {
		return nil, err
	}
	shown := make(map[access.Key]bool, len(m.GetKeys()))
	for _, key := range m.GetKeys() {
		if len(key) == len(access.Key{}) {
			shown[access.Key(key)] = true
		}
	}
	var items []admission.Item
	proven := false
	for _, s := range seats {
		switch {
		case shown[s.Key]:
			proven = true
		case s.Silent && len(items) < maxAbsent:
			items = append(items, admission.Item{Sign: &admission.Sign{
				Session: s.Session, Age: age, Edge: edge, Close: true, Reason: access.CloseStopped,
			}})
		}
	}
	if !proven {
		return nil, nil
	}
	return items, nil
}
