package bus_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"usher.internal/libs/bus"
	"usher.internal/libs/telemetry"
	"usher.internal/libs/testkit"
	names "usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

func decided(context.Context, string, *usherv1.AuthRequest) *usherv1.AuthReply {
	return &usherv1.AuthReply{Status: usherv1.AuthReply_STATUS_DECIDED, Outcome: "allow"}
}

// serving starts ServeAuth and returns once a question reaches it.
func serving(t *testing.T, w, client *bus.Conn, workers, queue int, h bus.AuthHandler) (stop func()) {
	t.Helper()
	stop = background(t, func(ctx context.Context) error { return w.ServeAuth(ctx, region, workers, queue, probed(h)) })
	eventually(t, 5*time.Second, "worker serves", func() bool {
		r, err := client.Ask(within(t, time.Second), region, edge, &usherv1.AuthRequest{Edge: probe})
		return err == nil && r.GetStatus() == usherv1.AuthReply_STATUS_DECIDED
	})
	return stop
}

const probe = "probe"

func probed(h bus.AuthHandler) bus.AuthHandler {
	return func(ctx context.Context, edge string, req *usherv1.AuthRequest) *usherv1.AuthReply {
		if req.GetEdge() == probe {
			return decided(ctx, edge, req)
		}
		return h(ctx, edge, req)
	}
}

func TestAskReachesTheHandlerWithTheSubjectsEdgeAndWhatIsLeftOfTheDeadline(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	c, w := connected(t, s, edge), connected(t, s, "w1")
	type seen struct {
		edge string
		left time.Duration
	}
	got := make(chan seen, 1)
	serving(t, w, c, 2, 2, func(ctx context.Context, edge string, req *usherv1.AuthRequest) *usherv1.AuthReply {
		deadline, _ := ctx.Deadline()
		got <- seen{edge, time.Until(deadline)}
		return &usherv1.AuthReply{Status: usherv1.AuthReply_STATUS_DECIDED, Outcome: "deny", User: req.GetToken()}
	})
	reply, err := c.Ask(within(t, 800*time.Millisecond), region, edge, &usherv1.AuthRequest{Edge: "somebody-else", Token: "x"})
	if err != nil || reply.GetOutcome() != "deny" || reply.GetUser() != "x" {
		t.Fatalf("Ask = %v, %v", reply, err)
	}
	v := receive(t, time.Second, "question", got)
	if v.edge != edge {
		t.Errorf("edge = %q, want the subject's %q", v.edge, edge)
	}
	if v.left > 780*time.Millisecond || v.left < 500*time.Millisecond {
		t.Errorf("handler has %v, want just under 780ms", v.left)
	}
}

// leastOf asks until one answer came at once, and gives the quickest: on a busy machine any single
// one may take its time. Each must fail as wanted.
func leastOf(t *testing.T, c *bus.Conn, want error) time.Duration {
	t.Helper()
	least := time.Hour
	for range 20 {
		begin := time.Now()
		if _, err := c.Ask(within(t, 5*time.Second), region, edge, &usherv1.AuthRequest{}); !errors.Is(err, want) {
			t.Errorf("Ask = %v, want %v", err, want)
		}
		if least = min(least, time.Since(begin)); least < 50*time.Millisecond {
			break
		}
	}
	return least
}

func TestAskFaults(t *testing.T) {
	t.Parallel()

	t.Run("no worker is told at once", func(t *testing.T) {
		t.Parallel()
		c := connected(t, testkit.NATS(t), edge)
		if d := leastOf(t, c, bus.ErrNoWorker); d > 50*time.Millisecond {
			t.Errorf("took %v, want under 50ms", d)
		}
	})

	t.Run("a hung worker is a timeout", func(t *testing.T) {
		t.Parallel()
		s := testkit.NATS(t)
		c, w := connected(t, s, edge), connected(t, s, "w1")
		release := make(chan struct{})
		serving(t, w, c, 1, 1, func(ctx context.Context, e string, r *usherv1.AuthRequest) *usherv1.AuthReply {
			<-release
			return decided(ctx, e, r)
		})
		t.Cleanup(func() { close(release) })
		_, err := c.Ask(within(t, 100*time.Millisecond), region, edge, &usherv1.AuthRequest{})
		if !errors.Is(err, bus.ErrTimeout) {
			t.Errorf("Ask = %v, want ErrTimeout", err)
		}
	})

	t.Run("the caller's cancellation comes through", func(t *testing.T) {
		t.Parallel()
		c := connected(t, testkit.NATS(t), edge)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := c.Ask(ctx, region, edge, &usherv1.AuthRequest{}); !errors.Is(err, context.Canceled) {
			t.Errorf("Ask = %v, want context.Canceled", err)
		}
	})

	t.Run("without a server it is disconnected at once", func(t *testing.T) {
		t.Parallel()
		c := connect(t, bus.Config{Name: edge, URL: "nats://" + freeAddr(t)})
		if d := leastOf(t, c, bus.ErrDisconnected); d > 100*time.Millisecond {
			t.Errorf("took %v, want ErrDisconnected at once", d)
		}
	})

	t.Run("losing the server ends the wait", func(t *testing.T) {
		t.Parallel()
		s := testkit.NATS(t)
		c, w := connected(t, s, edge), connected(t, s, "w1")
		begun, release := make(chan struct{}), make(chan struct{})
		serving(t, w, c, 1, 0, func(ctx context.Context, e string, r *usherv1.AuthRequest) *usherv1.AuthReply {
			close(begun)
			<-release
			return decided(ctx, e, r)
		})
		t.Cleanup(func() { close(release) })
		got := make(chan error, 1)
		go func() {
			_, err := c.Ask(context.Background(), region, edge, &usherv1.AuthRequest{})
			got <- err
		}()
		receive(t, 2*time.Second, "begin", begun)
		s.Stop()
		if err := receive(t, 2*time.Second, "end of the wait", got); !errors.Is(err, bus.ErrDisconnected) {
			t.Errorf("Ask = %v, want ErrDisconnected", err)
		}
	})

	t.Run("a name that is no subject token is refused", func(t *testing.T) {
		t.Parallel()
		c := connected(t, testkit.NATS(t), edge)
		for _, bad := range []string{"", "a.b", "*", ">", "a b", strings.Repeat("x", 65)} {
			if _, err := c.Ask(within(t, time.Second), region, bad, &usherv1.AuthRequest{}); err == nil || errors.Is(err, bus.ErrNoWorker) {
				t.Errorf("Ask as %q = %v, want a refusal", bad, err)
			}
			if _, err := c.Ask(within(t, time.Second), bad, edge, &usherv1.AuthRequest{}); err == nil || errors.Is(err, bus.ErrNoWorker) {
				t.Errorf("Ask in %q = %v, want a refusal", bad, err)
			}
		}
	})
}

func TestWorkerUnderLoad(t *testing.T) {
	t.Parallel()

	t.Run("full means BUSY at once", func(t *testing.T) {
		t.Parallel()
		s := testkit.NATS(t)
		c, w := connected(t, s, edge), connected(t, s, "w1")
		release := make(chan struct{})
		var running atomic.Int32
		serving(t, w, c, 2, 1, func(ctx context.Context, e string, r *usherv1.AuthRequest) *usherv1.AuthReply {
			running.Add(1)
			<-release
			return decided(ctx, e, r)
		})
		var wg sync.WaitGroup
		var busy, ok atomic.Int32
		for range 20 {
			wg.Go(func() {
				begin := time.Now()
				r, err := c.Ask(within(t, 10*time.Second), region, edge, &usherv1.AuthRequest{})
				switch {
				case err != nil:
					t.Errorf("Ask: %v", err)
				case r.GetStatus() == usherv1.AuthReply_STATUS_BUSY:
					if d := time.Since(begin); d > time.Second {
						t.Errorf("BUSY took %v", d)
					}
					busy.Add(1)
				case r.GetStatus() == usherv1.AuthReply_STATUS_DECIDED:
					ok.Add(1)
				}
			})
		}
		eventually(t, 5*time.Second, "17 are refused", func() bool { return busy.Load() == 17 })
		close(release)
		wg.Wait()
		if ok.Load() != 3 {
			t.Errorf("%d decided, want 3 (two running, one queued)", ok.Load())
		}
	})

	t.Run("what waited too long is LATE and not begun", func(t *testing.T) {
		t.Parallel()
		s := testkit.NATS(t)
		c, w := connected(t, s, edge), connected(t, s, "w1")
		begun, release := make(chan struct{}, 2), make(chan struct{})
		serving(t, w, c, 1, 1, func(ctx context.Context, e string, r *usherv1.AuthRequest) *usherv1.AuthReply {
			begun <- struct{}{}
			<-release
			return decided(ctx, e, r)
		})
		go func() { _, _ = c.Ask(context.Background(), region, edge, &usherv1.AuthRequest{}) }()
		receive(t, 2*time.Second, "begin", begun)
		nc := raw(t, s.ClientURL())
		msg := nats.NewMsg(names.Auth(region, edge))
		msg.Header[names.DeadlineHeader] = []string{"60"}
		msg.Reply = "_INBOX.raw"
		sub, err := nc.SubscribeSync(msg.Reply)
		if err != nil {
			t.Fatal(err)
		}
		sent := time.Now()
		if err := nc.PublishMsg(msg); err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		eventually(t, 2*time.Second, "its time is over", func() bool { return time.Since(sent) > 60*time.Millisecond })
		close(release)
		m, err := sub.NextMsg(2 * time.Second)
		if err != nil {
			t.Fatalf("no reply: %v", err)
		}
		if r := decode(t, m); r.GetStatus() != usherv1.AuthReply_STATUS_LATE {
			t.Errorf("status = %v, want LATE", r.GetStatus())
		}
		if len(begun) != 0 {
			t.Error("the handler was begun all the same")
		}
	})

	t.Run("hostile requests are refused alone", func(t *testing.T) {
		t.Parallel()
		s := testkit.NATS(t)
		c, w := connected(t, s, edge), connected(t, s, "w1")
		serving(t, w, c, 1, 8, func(ctx context.Context, e string, r *usherv1.AuthRequest) *usherv1.AuthReply {
			switch r.GetToken() {
			case "panic":
				panic("boom")
			case "nil":
				return nil
			case "utf8":
				return &usherv1.AuthReply{Status: usherv1.AuthReply_STATUS_DECIDED, User: "\xff"}
			}
			return decided(ctx, e, r)
		})
		nc := raw(t, s.ClientURL())
		m, err := nc.Request(names.Auth(region, edge), []byte("\xff\xff not protobuf"), 2*time.Second)
		if err != nil || decode(t, m).GetStatus() != usherv1.AuthReply_STATUS_INTERNAL {
			t.Errorf("malformed = %v, %v, want INTERNAL", m, err)
		}
		for _, token := range []string{"panic", "nil", "utf8"} {
			r, err := c.Ask(within(t, 2*time.Second), region, edge, &usherv1.AuthRequest{Token: token})
			if err != nil || r.GetStatus() != usherv1.AuthReply_STATUS_INTERNAL {
				t.Errorf("%s = %v, %v, want INTERNAL", token, r, err)
			}
		}
		r, err := c.Ask(within(t, 2*time.Second), region, edge, &usherv1.AuthRequest{})
		if err != nil || r.GetStatus() != usherv1.AuthReply_STATUS_DECIDED {
			t.Errorf("the next question = %v, %v", r, err)
		}
	})

	t.Run("odd deadlines don't harm", func(t *testing.T) {
		t.Parallel()
		s := testkit.NATS(t)
		c, w := connected(t, s, edge), connected(t, s, "w1")
		serving(t, w, c, 1, 1, decided)
		nc := raw(t, s.ClientURL())
		for header, want := range map[string]usherv1.AuthReply_Status{
			"":                       usherv1.AuthReply_STATUS_DECIDED,
			"-5":                     usherv1.AuthReply_STATUS_DECIDED,
			"soon":                   usherv1.AuthReply_STATUS_DECIDED,
			"99999999999999999999":   usherv1.AuthReply_STATUS_DECIDED,
			"9223372036854775807":    usherv1.AuthReply_STATUS_DECIDED,
			"0":                      usherv1.AuthReply_STATUS_LATE,
			"19":                     usherv1.AuthReply_STATUS_LATE,
			strings.Repeat("1", 999): usherv1.AuthReply_STATUS_DECIDED,
		} {
			msg := nats.NewMsg(names.Auth(region, edge))
			msg.Header[names.DeadlineHeader] = []string{header}
			m, err := nc.RequestMsg(msg, 2*time.Second)
			if err != nil || decode(t, m).GetStatus() != want {
				t.Errorf("deadline %.30q = %v, %v, want %v", header, m, err, want)
			}
		}
	})

	t.Run("a reply subject that is no inbox is never published on", func(t *testing.T) {
		t.Parallel()
		s, c := withStreams(t)
		w := connected(t, s, "w1")
		var handled atomic.Int32
		serving(t, w, c, 1, 1, func(ctx context.Context, e string, r *usherv1.AuthRequest) *usherv1.AuthReply {
			handled.Add(1)
			return decided(ctx, e, r)
		})
		nc := raw(t, s.ClientURL())
		if err := nc.PublishRequest(names.Auth(region, edge), names.Control("kill", "x"), nil); err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		// The next question comes behind it in the same subscription.
		if _, err := c.Ask(within(t, 2*time.Second), region, edge, &usherv1.AuthRequest{}); err != nil {
			t.Fatal(err)
		}
		if handled.Load() != 1 {
			t.Errorf("%d handled, want only the honest question", handled.Load())
		}
		js, err := nc.JetStream()
		if err != nil {
			t.Fatal(err)
		}
		info, err := js.StreamInfo(names.ControlStream)
		if err != nil || info.State.LastSeq != 0 {
			t.Errorf("control stream = %+v, %v, want it empty", info, err)
		}
	})
}

func TestStoppingAWorkerLosesNoRequest(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	c := connected(t, s, edge)
	slow := func(ctx context.Context, e string, r *usherv1.AuthRequest) *usherv1.AuthReply {
		timer := time.NewTimer(2 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			t.Error("a handler's context ended by the stop")
		}
		return decided(ctx, e, r)
	}
	serving(t, connected(t, s, "w1"), c, 8, 256, slow)
	var lost, answered atomic.Int64
	load, end := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for load.Err() == nil {
				r, err := c.Ask(within(t, 10*time.Second), region, edge, &usherv1.AuthRequest{})
				if err != nil || r.GetStatus() != usherv1.AuthReply_STATUS_DECIDED {
					lost.Add(1)
					t.Errorf("Ask = %v, %v", r, err)
					return
				}
				answered.Add(1)
			}
		})
	}
	for range 10 { // a worker comes and goes, again and again
		w := connected(t, s, "w2")
		stop := background(t, func(ctx context.Context) error { return w.ServeAuth(ctx, region, 8, 256, slow) })
		before := answered.Load()
		eventually(t, 5*time.Second, "load goes on", func() bool { return answered.Load() > before+200 })
		stop()
		if err := w.Close(within(t, 5*time.Second)); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	end()
	wg.Wait()
	if lost.Load() != 0 || answered.Load() < 2000 {
		t.Errorf("%d lost of %d", lost.Load(), answered.Load())
	}
}

func TestSeatsGoTheSameWay(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	c, w := connected(t, s, edge), connected(t, s, "w1")
	background(t, func(ctx context.Context) error {
		return w.ServeSeats(ctx, region, 2, 2, func(_ context.Context, edge string, r *usherv1.SeatsRequest) *usherv1.SeatsReply {
			return &usherv1.SeatsReply{Ok: true, Ended: []*usherv1.SeatEnd{{SessionId: r.GetSigns()[0].GetSessionId(), Reason: edge}}}
		})
	})
	var reply *usherv1.SeatsReply
	eventually(t, 5*time.Second, "worker serves", func() bool {
		var err error
		reply, err = c.SendSeats(within(t, time.Second), region, edge, &usherv1.SeatsRequest{Signs: []*usherv1.SeatSign{{SessionId: []byte("s1")}}})
		return err == nil
	})
	if !reply.GetOk() || string(reply.GetEnded()[0].GetSessionId()) != "s1" || reply.GetEnded()[0].GetReason() != edge {
		t.Errorf("SendSeats = %v", reply)
	}
	m, err := raw(t, s.ClientURL()).Request(names.Seats(region, edge), []byte("\xff"), 2*time.Second)
	if err != nil || len(m.Data) != 0 {
		t.Errorf("malformed seats = %v, %v, want an empty (not ok) reply", m, err)
	}
}

func TestOneTraceOverBothSides(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	spans := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
	c := connect(t, bus.Config{Name: edge, URL: s.ClientURL(), Tracer: tracer})
	w := connect(t, bus.Config{Name: "w1", URL: s.ClientURL(), Tracer: tracer})
	var inHandler trace.SpanContext
	serving(t, w, c, 1, 1, func(ctx context.Context, e string, r *usherv1.AuthRequest) *usherv1.AuthReply {
		inHandler = trace.SpanContextFromContext(ctx)
		return decided(ctx, e, r)
	})
	ctx, root := tracer.Start(within(t, 2*time.Second), "root")
	if _, err := c.Ask(ctx, region, edge, &usherv1.AuthRequest{}); err != nil {
		t.Fatal(err)
	}
	root.End()
	if inHandler.TraceID() != root.SpanContext().TraceID() {
		t.Fatalf("handler's trace = %v, want %v", inHandler.TraceID(), root.SpanContext().TraceID())
	}
	var ask, process sdktrace.ReadOnlySpan
	eventually(t, 2*time.Second, "both spans ended", func() bool {
		for _, sp := range spans.Ended() {
			if sp.SpanContext().TraceID() != root.SpanContext().TraceID() {
				continue
			}
			switch sp.Name() {
			case telemetry.SpanRequestAuth:
				ask = sp
			case telemetry.SpanProcessAuth:
				process = sp
			}
		}
		return ask != nil && process != nil
	})
	if ask.Parent().SpanID() != root.SpanContext().SpanID() || process.Parent().SpanID() != ask.SpanContext().SpanID() {
		t.Errorf("span tree: root %v, ask under %v, process under %v",
			root.SpanContext().SpanID(), ask.Parent().SpanID(), process.Parent().SpanID())
	}
	if ask.SpanKind() != trace.SpanKindClient || process.SpanKind() != trace.SpanKindServer {
		t.Errorf("kinds = %v, %v", ask.SpanKind(), process.SpanKind())
	}
	if strings.Contains(process.Name(), edge) {
		t.Errorf("span name %q holds a raw name", process.Name())
	}
}

func TestRequestsWorkAgainAfterTheServerRestarted(t *testing.T) {
	t.Parallel()
	r := newRestartable(t)
	c, w := connected(t, r.s, edge), connected(t, r.s, "w1")
	serving(t, w, c, 2, 2, decided)
	for range 2 {
		r.restart()
		eventually(t, 10*time.Second, "an answer", func() bool {
			reply, err := c.Ask(within(t, time.Second), region, edge, &usherv1.AuthRequest{})
			return err == nil && reply.GetStatus() == usherv1.AuthReply_STATUS_DECIDED
		})
	}
}
