package edge

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/bus"
	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
)

const (
	// sweepEvery is how often the sweeper looks for silence and for signs to report.
	sweepEvery = time.Second
	// maxSigns go into one message.
	maxSigns = 500
	// seatsTimeout is for one message.
	seatsTimeout = 3 * time.Second
	// maxCloses bounds the closes that wait while workers are away; the ledger's own
	// expiry stands behind those that are dropped.
	maxCloses = 65536
	// renewals go out every third of the silence that ends a session, within these.
	minRenewal, maxRenewal = time.Second, 30 * time.Second
	// flushTime is what a stop waits for the last renewals.
	flushTime = 3 * time.Second
)

// Seats tells the workers of a region which sessions live and which have ended.
// Telling it again is always safe.
type Seats interface {
	SendSeats(ctx context.Context, region, edge string, req *usherv1.SeatsRequest) (*usherv1.SeatsReply, error)
}

var errLedgerAway = errors.New("the ledger is away")

// sign is one session's sign of life, or its end, to be told: of a session by its id, or of one
// that is not known here by its key.
type sign struct {
	ses   *session
	id    uuid.UUID
	key   access.Key
	of    *report
	at    instant            // when the sign was seen
	close access.CloseReason // "" for a renewal
}

// closings are sessions that ended on the way of a question or by a node's word, for the
// sweeper to tell, and what nodes say of sessions that are not known here.
type closings struct {
	mu        sync.Mutex // guards all below
	list      []sign
	strangers map[access.Key]sign
	// wake tells the sweeper of an end at a node's word: its seat is free for whoever waits for it.
	wake chan struct{}
	lost int64        // closes that found no room
	kept atomic.Int64 // closes that the sweeper has and no worker has taken yet
}

// waiting is how many closes no worker has taken yet.
func (c *closings) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.list) + int(c.kept.Load())
}

// renew adds a sign of life by key; one that finds no room comes again.
func (c *closings) renew(g sign) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, ok := c.strangers[g.key]
	if ok && old.at >= g.at || !ok && len(c.strangers) >= maxStrangers {
		return
	}
	if c.strangers == nil {
		c.strangers = make(map[access.Key]sign)
	}
	c.strangers[g.key] = g
}

func (c *closings) add(g sign) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.list) >= maxCloses {
		c.lost++
		return
	}
	c.list = append(c.list, g)
	if g.close == access.CloseStopped {
		select {
		case c.wake <- struct{}{}:
		default: // woken already
		}
	}
}

// ends empties the list; lost is how many found no room in it.
func (c *closings) ends() (list []sign, lost int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list, lost = c.list, c.lost
	c.list, c.lost = nil, 0
	return list, lost
}

// unknown are the signs of life by key.
func (c *closings) unknown() map[access.Key]sign {
	c.mu.Lock()
	defer c.mu.Unlock()
	strangers := c.strangers
	c.strangers = nil
	return strangers
}

// sweeper finds silence and reports signs of life. All of it belongs to one goroutine.
type sweeper struct {
	s        *Service
	renewals []sign
	closes   []sign // kept until a worker has taken them
	// behind is the oldest sign that could not be told, 0 if none.
	behind instant
	lost   int64    // closes that found no room
	shown  [3]int64 // totals that the metrics have had
}

// sweep runs the sweeper until ctx ends; then it tells the last signs of life, and
// closes nothing: whoever takes over goes on with these sessions.
func (s *Service) sweep(ctx context.Context) error {
	w := &sweeper{s: s}
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			w.round(ctx, s.now(), false)
		case <-s.closings.wake:
			if w.behind == 0 { // else they are tried again with the next round
				w.told(ctx, w.endings(ctx), s.now())
			}
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
			w.round(last, s.now(), true)
			cancel()
			return nil
		}
	}
}

// round looks at every session once and tells what there is to tell. last tells all
// signs of life, however fresh the one before.
func (w *sweeper) round(ctx context.Context, now instant, last bool) {
	s := w.s
	w.renewals = w.renewals[:0]
	for _, g := range s.closings.unknown() {
		w.renewals = append(w.renewals, g)
	}
	s.table.each(func(ses *session) { w.look(ses, now, last) })
	s.bars.sweep(now)
	s.refusals.sweep(now)
	s.tallies.flush(now, s.journal.add)
	err := w.endings(ctx)
	if err == nil {
		err = w.tell(ctx, w.renewals, nil)
	}
	w.told(ctx, err, now)
	s.metrics.swept(w, now)
}

// endings tells which sessions have ended.
func (w *sweeper) endings(ctx context.Context) error {
	c := &w.s.closings
	ended, lost := c.ends()
	w.lost += lost
	for _, g := range ended {
		w.close(g)
	}
	c.kept.Store(int64(len(w.closes)))
	defer func() { c.kept.Store(int64(len(w.closes))) }()
	return w.tell(ctx, w.closes, func(left []sign) { w.closes = left })
}

// told notes whether workers take what is told.
func (w *sweeper) told(ctx context.Context, err error, now instant) {
	switch {
	case err == nil:
		w.behind = 0
	case w.behind == 0:
		w.behind = now
		w.s.log.WarnContext(ctx, "signs of life cannot be told, they are kept", slog.Any(telemetry.Error, err))
	}
}

// look decides what there is to tell about one session.
func (w *sweeper) look(ses *session, now instant, last bool) {
	at := instant(ses.lastSign.Load())
	g := ses.grant.Load()
	if ses.zapped.Load() != 0 {
		// The ledger has closed it already. Once it has paused it is nobody's any more.
		if ses.over(now) {
			if w.s.table.remove(ses) {
				w.s.complete(g.session, ses.node.Value(), ses.said.Load())
			}
		}
		return
	}
	if silence := time.Duration(ses.silence.Load()); now.since(at) >= silence && !last {
		if w.s.table.remove(ses) && g.session != uuid.Nil {
			w.close(sign{ses: ses, id: g.session, at: at, close: access.CloseIdle})
		}
		return
	}
	if g.session == uuid.Nil || at == ses.reported {
		return
	}
	if last || now.since(ses.renewed) >= renewal(time.Duration(ses.silence.Load())) {
		w.renewals = append(w.renewals, sign{ses: ses, id: g.session, at: at})
	}
}

func (w *sweeper) close(g sign) {
	if len(w.closes) >= maxCloses {
		w.lost++
		return
	}
	w.closes = append(w.closes, g)
}

// renewal is how often a session that lives is renewed.
func renewal(silence time.Duration) time.Duration {
	return min(max(silence/3, minRenewal), maxRenewal)
}

// tell sends signs in messages of maxSigns until one fails; left is given what
// was not taken.
func (w *sweeper) tell(ctx context.Context, signs []sign, left func([]sign)) error {
	for len(signs) > 0 {
		part := signs[:min(maxSigns, len(signs))]
		if err := w.send(ctx, part); err != nil {
			return err
		}
		signs = signs[len(part):]
		if left != nil {
			left(signs)
		}
	}
	return nil
}

func (w *sweeper) send(ctx context.Context, part []sign) error {
	s := w.s
	ctx, cancel := context.WithTimeout(ctx, seatsTimeout)
	defer cancel()
	now := s.now()
	req := &usherv1.SeatsRequest{Region: s.cfg.Region, Edge: s.cfg.Name, Signs: make([]*usherv1.SeatSign, len(part))}
	for i := range part {
		req.Signs[i] = part[i].message(now)
	}
	reply, err := s.putSeats(ctx, req)
	if err != nil {
		return err
	}
	for _, g := range part {
		if g.ses == nil {
			continue
		}
		g.ses.reported, g.ses.renewed = g.at, now
		if g.close != "" {
			s.complete(g.id, g.ses.node.Value(), g.ses.said.Load())
		}
	}
	if len(reply.GetEnded()) > 0 {
		w.ended(part, reply.GetEnded(), now)
	}
	return nil
}

// putSeats puts one message to the regions in their order until one has taken it: the workers
// of a region that is cut off may be there without the ledger.
func (s *Service) putSeats(ctx context.Context, req *usherv1.SeatsRequest) (*usherv1.SeatsReply, error) {
	order := s.regions.order(s.now(), true)
	var last error
	for i, r := range order {
		reply, err := s.putSeatsTo(ctx, r, req, len(order)-i)
		if err == nil {
			return reply, nil
		}
		last = err
	}
	return nil, last
}

// putSeatsTo leaves the other regions of those to come their part of the time.
func (s *Service) putSeatsTo(ctx context.Context, r *region, req *usherv1.SeatsRequest, tocome int) (*usherv1.SeatsReply, error) {
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(tocome))
	defer cancel()
	reply, err := s.seats.SendSeats(ctx, r.name, s.cfg.Name, req)
	if errors.Is(err, bus.ErrTimeout) {
		r.missed(s.now())
	}
	if err != nil {
		return nil, err
	}
	r.answered()
	if !reply.GetOk() {
		return nil, errLedgerAway
	}
	return reply, nil
}

// ended drops the sessions that are no longer live: their next question is a new one.
func (w *sweeper) ended(part []sign, ends []*usherv1.SeatEnd, now instant) {
	keys := make(map[uuid.UUID]access.Key, len(part))
	for _, g := range part {
		if g.ses != nil && g.close == "" {
			keys[g.id] = g.ses.key
		}
	}
	for _, e := range ends {
		if at := int(e.GetSign()) - 1; at >= 0 {
			if at < len(part) && part[at].ses == nil && string(part[at].key[:]) == string(e.GetSessionKey()) {
				w.s.found(part[at], e)
			}
			continue
		}
		id := idOf(e.GetSessionId())
		if k, ok := keys[id]; ok {
			w.s.end(k, id, access.CloseReason(e.GetReason()), now)
		}
	}
}

func (g sign) message(now instant) *usherv1.SeatSign {
	if g.ses == nil {
		return g.of.message(&g, now)
	}
	m := &usherv1.SeatSign{
		SessionId: g.id[:], AgeMs: max(now.since(g.at), 0).Milliseconds(),
		Close: g.close != "", Reason: string(g.close),
		Requests: g.ses.requests.Load(), Node: g.ses.node.Value(),
	}
	if told := g.ses.said.Load(); told != nil {
		m.Bytes = told.bytes
	}
	return m
}
