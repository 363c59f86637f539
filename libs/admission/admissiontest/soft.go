package admissiontest

import (
	"bytes"
	"slices"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
)

// soft is how far beyond a soft limit a subject is, and since when: the n-th of excess began when
// the n-th seat beyond the limit was taken, and ends when the subject falls below it again.
type soft struct {
	sessions int
	excess   []excess
}

type excess struct{ at, idleAt, cutAt time.Time }

// levels are how many seats each subject of an open's limits held before it.
type levels map[access.Key]int

func (m *Model) levels(o *admission.Open) levels {
	before := levels{}
	for _, l := range o.All() {
		before[l.Subject] = len(m.held(l.Subject))
	}
	return before
}

// held are the enforced seats of a subject.
func (m *Model) held(subject access.Key) []*seat {
	return m.sorted(func(s *seat) bool { return s.under(subject) && !s.Shadow && s.expires.After(m.now()) })
}

// exceed notes how far beyond its soft limits an open that was let in has brought its subjects.
func (m *Model) exceed(o *admission.Open, before levels) {
	if o.Shadow {
		return
	}
	for _, l := range o.All() {
		if l.Mode != access.Soft {
			continue
		}
		s := m.soft[l.Subject]
		if s == nil {
			s = &soft{}
			m.soft[l.Subject] = s
		}
		s.sessions = l.Sessions
		s.fall(before[l.Subject])
		now, cut := m.now(), l.SoftCut()
		for len(s.excess) < len(m.held(l.Subject))-l.Sessions {
			s.excess = append(s.excess, excess{now, now.Add(cut / 3), now.Add(cut)})
		}
	}
}

// fall forgets what has ended by itself.
func (s *soft) fall(n int) { s.excess = s.excess[:min(len(s.excess), max(0, n-s.sessions))] }

// Sweep closes what has expired and does what is due of soft limits.
func (m *Model) Sweep() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, st := range m.sorted(func(s *seat) bool { return !s.expires.After(m.now()) }) {
		m.end(st, access.CloseExpired, "", nil)
	}
	var all []access.Key
	for k := range m.soft {
		all = append(all, k)
	}
	m.settle(all)
}

// Pass lets time pass for soft limits and signs of life alone.
func (m *Model) Pass(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.soft {
		for i, e := range s.excess {
			s.excess[i] = excess{e.at.Add(-d), e.idleAt.Add(-d), e.cutAt.Add(-d)}
		}
	}
	for _, s := range m.seats {
		s.lastSeen = s.lastSeen.Add(-d)
	}
}

func softKeys(items []admission.Item, bad map[int]bool) []access.Key {
	var keys []access.Key
	for i, it := range items {
		if it.Open == nil || bad[i] {
			continue
		}
		for _, l := range it.Open.All() {
			if l.Mode == access.Soft {
				keys = append(keys, l.Subject)
			}
		}
	}
	return keys
}

func (m *Model) settle(keys []access.Key) {
	slices.SortFunc(keys, func(a, b access.Key) int { return bytes.Compare(a[:], b[:]) })
	for _, k := range slices.Compact(keys) {
		if s := m.soft[k]; s != nil {
			m.settleOne(k, s)
		}
	}
}

// settleOne evicts the oldest for each excess that has lasted its time, and closes the oldest
// silent ones for those that have lasted a third of it.
func (m *Model) settleOne(k access.Key, s *soft) {
	now := m.now()
	if !slices.ContainsFunc(s.excess, func(e excess) bool {
		return !e.cutAt.After(now) || !e.idleAt.After(now) && len(m.silent(k, e)) > 0
	}) {
		return
	}
	s.fall(len(m.held(k)))
	over := 0
	s.excess = slices.DeleteFunc(s.excess, func(e excess) bool {
		due := !e.cutAt.After(now)
		if due {
			over++
		}
		return due
	})
	for _, st := range m.held(k)[:over] {
		m.end(st, access.CloseEvicted, "", nil)
	}
	for _, e := range slices.Clone(s.excess) {
		if e.idleAt.After(now) {
			continue
		}
		if silent := m.silent(k, e); len(silent) > 0 {
			m.end(silent[0], access.CloseIdle, "", nil)
			s.fall(len(m.held(k)))
		}
	}
}

// silent are the seats of a subject that have shown no life for longer than a renewal may be away.
func (m *Model) silent(k access.Key, e excess) []*seat {
	since := m.now().Add(-e.cutAt.Sub(e.at) * 4 / 9)
	return slices.DeleteFunc(m.held(k), func(st *seat) bool { return !st.lastSeen.Before(since) })
}
