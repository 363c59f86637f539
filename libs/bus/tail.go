package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// fetchTime is how long one pull request stands; fetchHeartbeat how often the
	// server says meanwhile that it is still there. Two missing end the tail.
	fetchTime      = 10 * time.Second
	fetchHeartbeat = time.Second
	// tailIdle is after which the server forgets a consumer that nobody pulls from.
	tailIdle = time.Minute
	// forgetTimeout bounds the deletion of a consumer that is no longer needed.
	forgetTimeout = 500 * time.Millisecond
)

// Why a tail ends, besides its context and NATS's own errors.
var (
	errGap       = errors.New("the server skipped a message")
	errRecreated = errors.New("the stream was created anew")
	errBehind    = errors.New("the reader fell behind the stream")
)

// opening says what a tail reads.
type opening struct {
	js     jetstream.JetStream // where the stream is
	stream string
	filter string // subject, "" for all
	batch  int    // of one pull request
	// start returns the first sequence wanted, or 0 for the last message of each
	// subject. The stream's cached info is fresh: incarnationOf tells which life of
	// the stream the sequences belong to.
	start func(ctx context.Context, st jetstream.Stream) (uint64, error)
}

// tail reads a stream in order, without gaps, within one life of the connection and
// of the stream. The first irregularity ends it; whoever reads opens the next one
// where he left off. nats.go's own ordered consumer goes on by itself, and so cannot
// notice that it goes on in another stream of the same name.
type tail struct {
	incarnation time.Time
	first, last uint64 // of the stream before the consumer was made
	pending     uint64 // messages to read when it was made

	out  chan entry // closed at the end
	err  error      // why, readable after out was closed
	stop context.CancelCauseFunc
}

// entry is a message with its place.
type entry struct {
	jetstream.Msg
	seq     uint64
	pending uint64 // messages of the stream behind this one when it was sent
}

// incarnationOf is the stream's creation time as Postgres can keep it.
func incarnationOf(info *jetstream.StreamInfo) time.Time {
	return info.Created.UTC().Truncate(time.Microsecond)
}

// openTail starts reading. The tail ends with ctx, with the connection, or at the
// first irregularity; close must be called.
func (c *Conn) openTail(ctx context.Context, o opening) (*tail, error) {
	if err := c.WaitConnected(ctx); err != nil {
		return nil, err
	}
	l := c.link.Load()
	ctx, stop := context.WithCancelCause(ctx)
	unlink := context.AfterFunc(l.ctx, func() { stop(ErrDisconnected) })
	t, cons, err := c.prepareTail(ctx, o)
	if err != nil {
		unlink()
		stop(nil)
		return nil, err
	}
	t.stop = stop
	go func() {
		defer unlink()
		defer close(t.out)
		t.err = t.pump(ctx, cons, o.batch)
		c.forget(o, cons.CachedInfo().Name)
	}()
	return t, nil
}

func (c *Conn) prepareTail(ctx context.Context, o opening) (*tail, jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	st, err := o.js.Stream(ctx, o.stream)
	if err != nil {
		return nil, nil, fmt.Errorf("stream %s: %w", o.stream, err)
	}
	info := st.CachedInfo()
	t := &tail{
		incarnation: incarnationOf(info), out: make(chan entry),
		first: info.State.FirstSeq, last: info.State.LastSeq,
	}
	seq, err := o.start(ctx, st)
	if err != nil {
		return nil, nil, err
	}
	cfg := jetstream.ConsumerConfig{
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       seq,
		AckPolicy:         jetstream.AckNonePolicy,
		FilterSubject:     o.filter,
		InactiveThreshold: tailIdle,
		MemoryStorage:     true,
		Replicas:          1,
	}
	if seq == 0 {
		cfg.DeliverPolicy = jetstream.DeliverLastPerSubjectPolicy
		if o.filter == "" {
			cfg.FilterSubject = ">" // the server wants one with this policy
		}
	}
	cons, err := o.js.CreateConsumer(ctx, o.stream, cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("reading stream %s: %w", o.stream, err)
	}
	// The stream may have been deleted and made again between the two calls.
	again, err := st.Info(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("stream %s: %w", o.stream, err)
	}
	if !incarnationOf(again).Equal(t.incarnation) {
		return nil, nil, fmt.Errorf("stream %s: %w", o.stream, errRecreated)
	}
	t.pending = cons.CachedInfo().NumPending
	return t, cons, nil
}

// forget spares the server a minute of keeping a consumer that nobody reads.
func (c *Conn) forget(o opening, consumer string) {
	if !c.nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), forgetTimeout)
	defer cancel()
	_ = o.js.DeleteConsumer(ctx, o.stream, consumer) // it goes by itself after tailIdle
}

// close ends the tail and waits for its goroutine.
func (t *tail) close() {
	t.stop(nil)
	for range t.out { // what is left is read again later
	}
}

// pump pulls until something ends the tail and says what.
func (t *tail) pump(ctx context.Context, cons jetstream.Consumer, batch int) error {
	var seen uint64 // the consumer's own count of what it sent
	for {
		fetch, cancel := context.WithTimeout(ctx, fetchTime)
		msgs, err := cons.Fetch(batch, jetstream.FetchContext(fetch), jetstream.FetchHeartbeat(fetchHeartbeat))
		if err == nil {
			seen, err = t.pass(ctx, msgs, seen)
		}
		cancel()
		if msgs != nil {
			for range msgs.Messages() { // wait for the end of its goroutine
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		// The pull request's own end is no end of the tail.
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if err := complete(ctx, cons, seen); err != nil {
			return err
		}
	}
}

// complete asks whether all that the server sent has come. What was sent into a link that is cut
// between two servers, for less than the heartbeats tell, is lost without any other sign.
func complete(ctx context.Context, cons jetstream.Consumer, seen uint64) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	info, err := cons.Info(ctx)
	if err != nil {
		return fmt.Errorf("consumer of stream %s: %w", cons.CachedInfo().Stream, err)
	}
	// Nothing is on its way: no pull request stands.
	if info.Delivered.Consumer != seen {
		return errGap
	}
	return nil
}

// pass hands on the messages of one pull request.
func (t *tail) pass(ctx context.Context, msgs jetstream.MessageBatch, seen uint64) (uint64, error) {
	for m := range msgs.Messages() {
		meta, err := m.Metadata()
		if err != nil {
			return seen, fmt.Errorf("message of a stream: %w", err)
		}
		if seen++; meta.Sequence.Consumer != seen {
			return seen, errGap
		}
		select {
		case t.out <- entry{Msg: m, seq: meta.Sequence.Stream, pending: meta.NumPending}:
		case <-ctx.Done():
			return seen, context.Cause(ctx)
		}
	}
	return seen, msgs.Error()
}
