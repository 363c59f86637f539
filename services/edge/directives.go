package edge

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/directive"
	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
)

// directivesSweep is how often directives that have ended are forgotten.
const directivesSweep = time.Minute

// purging are directives that keep viewers out, whose running sessions are still to be ended.
type purging struct {
	mu   sync.Mutex // guards list
	list []directive.Directive
	wake chan struct{}
}

func newPurging() *purging { return &purging{wake: make(chan struct{}, 1)} }

func (p *purging) add(d directive.Directive) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, d)
	select {
	case p.wake <- struct{}{}:
	default: // whoever was woken takes this one too
	}
}

func (p *purging) take() []directive.Directive {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.list
	p.list = nil
	return list
}

// clock is the time by which directives end: the workers', as far as it is known.
func (s *Service) clock() time.Time {
	return time.Now().Add(time.Duration(s.clockOffset.Load()) * time.Millisecond)
}

// direct takes in a ban or override, or its end. It acts on the next question, and on running
// sessions at once.
func (s *Service) direct(m *usherv1.Control) {
	d, revoked, changed, err := s.book.Apply(m, s.clock())
	if changed {
		s.keeper.order(m)
	}
	switch {
	case err != nil:
		s.log.Error("ban or override cannot be used", slog.Any(telemetry.Error, err))
	case changed && !revoked && d.Action == directive.Deny && d.Check == "":
		s.purging.add(d)
	case changed:
		// Who was refused a moment ago may be let in now.
		s.denials.clear()
	}
}

// purge ends the sessions that new directives hit, many directives in one go, until ctx ends.
func (s *Service) purge(ctx context.Context) error {
	sweep := time.NewTicker(directivesSweep)
	defer sweep.Stop()
	for {
		select {
		case <-s.purging.wake:
			s.endHit(s.purging.take())
		case <-sweep.C:
			now := s.clock()
			s.book.Sweep(now)
			set := s.book.Set()
			s.culprits.sweep(func(v *directive.Viewer) bool { return set.MayRefuse(v) })
		case <-ctx.Done():
			return nil
		}
	}
}

// endHit drops the sessions that one of the list hits and that all directives together keep out. Their
// seats are closed already, with the directive.
func (s *Service) endHit(list []directive.Directive) {
	fresh, all, now := directive.NewSet(list...), s.book.Set(), s.clock()
	needs := needsOf(all)
	s.table.each(func(ses *session) {
		v := s.viewerOf(ses, needs)
		if fresh.Refusal(&v, now) != nil && all.Refusal(&v, now) != nil {
			s.accuse(ses)
			if s.table.remove(ses) {
				s.expel(ses, access.CloseBanned)
			}
		}
	})
}

// needs says what of a viewer directives look at that costs something to find out.
type needs struct{ token, device bool }

func needsOf(set *directive.Set) needs { return needs{set.NeedsToken(), set.NeedsDevice()} }

// viewerOf is the viewer of a running session. Of an IPv6 address the session has the prefix alone; the
// ledger knows the rest, and ends it too.
func (s *Service) viewerOf(ses *session, n needs) directive.Viewer {
	g := ses.grant.Load()
	v := directive.Viewer{Realm: g.realm, User: g.user, IP: ses.prefix, Stream: g.stream, Node: ses.node.Value()}
	if v.Stream == "" {
		v.Stream = ses.stream.Value()
	}
	if n.token {
		v.Token = s.keyer.Fingerprint(ses.token)
	}
	if n.device {
		v.Device = deviceOf(ses.device, ses.prefix, ses.ua.Value())
	}
	return v
}

// asking is who asks: an account is known of a running session alone.
func (s *Service) asking(q *question, old *grant, n needs) directive.Viewer {
	v := directive.Viewer{IP: q.IP, Stream: q.own, Node: q.Node}
	if old != nil {
		v.Realm, v.User = old.realm, old.user
		if old.stream != "" {
			v.Stream = old.stream
		}
	}
	if v.Stream == "" {
		v.Stream = q.Stream
	}
	if n.token {
		v.Token = s.keyer.Fingerprint(q.Token)
	}
	if n.device {
		v.Device = q.device()
	}
	return v
}

// order is the ban or override that decides about who asks, nil if none does. old is what a worker
// said of his running session, nil if he has none.
func (s *Service) order(q *question, old *grant) *directive.Directive {
	set := s.book.Set()
	if set.Len() == 0 {
		return nil
	}
	v, now := s.asking(q, old, needsOf(set)), s.clock()
	if d := set.Ban(&v, now); d != nil {
		return d
	}
	d := set.Ruling(&v, now)
	if d != nil && d.Action == directive.Allow && !q.plays() {
		return nil // to let somebody watch is not to let him publish
	}
	return d
}

// forbidden refuses whom a ban or an override keeps out, without asking a worker: also while none can
// be reached. Where an override lets accounts in, a worker that can be reached knows better.
func (s *Service) forbidden(ctx context.Context, q *question, ses *session) (access.Decision, bool) {
	var old *grant
	if ses != nil && ses.fits(q) {
		old = ses.grant.Load()
	}
	d := s.order(q, old)
	if d == nil || d.Action != directive.Deny || d.Kind == directive.Override && s.book.Set().AllowsUsers() && !s.cutOff() {
		return access.Decision{}, false
	}
	if old != nil {
		s.accuse(ses)
		if s.table.remove(ses) {
			s.expel(ses, access.CloseBanned)
		}
	}
	return s.refuse(ctx, q, q.IP, reasonOf(d), stepOf(d)), true
}

// overruled is the directive that keeps out whom a worker let in before it heard of it.
func (s *Service) overruled(q *question, d *access.Decision) *directive.Directive {
	o := s.order(q, &grant{realm: d.Realm, user: d.User, stream: d.Stream})
	if o == nil || o.Action != directive.Deny {
		return nil
	}
	return o
}

// mayAllow says whether an override could let in who brings nothing to be known by.
func (s *Service) mayAllow(q *question) bool {
	set := s.book.Set()
	if set.Len() == 0 || !q.plays() {
		return false
	}
	v := s.asking(q, nil, needsOf(set))
	return set.MayAllow(&v, s.clock())
}

// plays says whether the question is of somebody who wants to watch.
func (q *question) plays() bool { return q.Action == "" || q.Action == access.Play }

func reasonOf(d *directive.Directive) access.Reason {
	if d.Kind == directive.Ban {
		return access.Banned
	}
	return access.Overridden
}

// stepOf says which directive decided, who ordered it, until when and why.
func stepOf(d *directive.Directive) access.Step {
	result := string(access.Deny)
	if d.Action == directive.Allow {
		result = string(access.Allow)
	}
	return access.Step{Name: string(d.Kind), Result: result, Text: d.Words()}
}
