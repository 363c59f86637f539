package bus_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"usher.internal/libs/bus"
	"usher.internal/libs/telemetry"
	"usher.internal/libs/testkit"
	"usher.internal/schemas/proto/usherv1"
)

// BenchmarkAsk is a question and its answer over the bus; compare BenchmarkEcho of
// the same run, which does the same with nothing but nats.go.
func BenchmarkAsk(b *testing.B) {
	s := testkit.NATS(b)
	tel := telemetry.StartWith(nil)
	open := func(name string) *bus.Conn {
		c, err := bus.Connect(bus.Config{
			Name: name, InProcess: s.InProcess(), Tracer: tel.Tracer("bench"), Metrics: tel.Registry,
		}, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := c.WaitConnected(ctx); err != nil {
			b.Fatal(err)
		}
		return c
	}
	c, w := open("edge"), open("worker")
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.ServeAuth(ctx, region, 8, 4096, decided) }()
	defer func() { stop(); <-served }()
	for {
		if _, err := c.Ask(ctx, region, edge, question()); err == nil {
			break
		}
	}
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			_, err := c.Ask(ctx, region, edge, question())
			cancel()
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkEcho is the yardstick of BenchmarkAsk.
func BenchmarkEcho(b *testing.B) {
	s := testkit.NATS(b)
	open := func() *nats.Conn {
		nc, err := nats.Connect("", nats.InProcessServer(s.InProcess()))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(nc.Close)
		return nc
	}
	c, w := open(), open()
	reply, err := proto.Marshal(decided(context.Background(), "", nil))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := w.QueueSubscribe("echo", "q", func(m *nats.Msg) { _ = m.Respond(reply) }); err != nil {
		b.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			data, err := proto.Marshal(question())
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := c.Request("echo", data, 5*time.Second); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func question() *usherv1.AuthRequest {
	return &usherv1.AuthRequest{
		Id: make([]byte, 16), Region: region, Edge: edge, Node: "astra1", Caller: "astra", SessionKey: make([]byte, 16),
		Stream: "channel/one", Token: "0123456789abcdef0123456789abcdef", Query: "token=0123456789abcdef", Ip: "192.0.2.1", UserAgent: "VLC/3.0",
	}
}
