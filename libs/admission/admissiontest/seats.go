package admissiontest

import (
	"slices"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
)

// end closes a seat; by is the device of whoever took it.
func (m *Model) end(st *seat, why access.CloseReason, by string, r *admission.Result) {
	delete(m.seats, st.Session)
	m.closed[st.Session] = why
	now := m.now()
	e := admission.Ended{Session: st.Session, Key: st.Key, Subject: st.Subject, Realm: st.Realm, User: st.User,
		Stream: st.Stream, Device: st.Device, Node: st.Node, Reason: why, At: now}
	if why == access.CloseEvicted || why == access.CloseKilled {
		e.Bar = st.Lease
		m.bar(st.Key.String(), bar{until: now.Add(st.Lease), reason: access.Reason(why), of: st.Subject})
		if by != st.Device {
			e.BarDevice = true
			m.bar(onStream(st.Subject, st.Stream, st.Device), bar{until: now.Add(st.Lease), reason: access.Reason(why)})
		}
	}
	if r != nil && told(why) {
		m.outboxID++
		e.Outbox = m.outboxID
		r.Ended = append(r.Ended, e)
	}
}

// told says whether the edges must hear of the end: one that did not ask may still answer for the session.
func told(why access.CloseReason) bool {
	switch why {
	case access.CloseEvicted, access.CloseKilled, access.CloseZapped, access.CloseIDReused:
		return true
	}
	return false
}

// bar never shortens a bar that is there.
func (m *Model) bar(key string, b bar) {
	if old := m.bars[key].until; old.After(b.until) {
		b.until = old
	}
	m.bars[key] = b
}

func (m *Model) sorted(keep func(*seat) bool) []*seat {
	var s []*seat
	for _, st := range m.seats {
		if keep(st) {
			s = append(s, st)
		}
	}
	slices.SortFunc(s, func(a, b *seat) int { return a.order - b.order })
	return s
}

func onStream(subject access.Key, stream, device string) string {
	return subject.String() + "\x00" + device + "\x00" + stream
}

func courtesy(subject access.Key, device string) string {
	return "courtesy\x00" + subject.String() + "\x00" + device
}

// Seats are the live seats, in the order of their opening.
func (m *Model) Seats() []admission.Holder {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []admission.Holder
	for _, st := range m.sorted(func(*seat) bool { return true }) {
		all = append(all, admission.Holder{Session: st.Session, Stream: st.Stream, Node: st.Node, Device: st.Device, OpenedAt: st.openedAt})
	}
	return all
}
