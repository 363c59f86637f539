package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	names "usher.internal/schemas/nats"
)

const (
	dialTimeout   = 2 * time.Second
	reconnectWait = 200 * time.Millisecond
	// A connection over a black hole is given up after pingInterval*pingsOut.
	pingInterval = 5 * time.Second
	pingsOut     = 2
	// apiTimeout bounds calls of the JetStream API that come without a deadline.
	apiTimeout = 5 * time.Second
)

// Config says where the bus is and who we are.
type Config struct {
	// Name of this process: an edge's or worker's name. It is a token of its inbox
	// subject, so that permissions can keep others from reading its replies.
	Name string
	// Region of this process.
	Region string
	// Hub is the region that keeps the policy and the control stream, and sources the journals
	// of the others; "" or Region where that is ours. Each region is a JetStream domain of
	// its own name then, and the hub's is reached over the link between the two.
	Hub string
	// URL of the servers, comma-separated; ignored with InProcess.
	URL string
	// Creds is a file with a NATS user's JWT and seed.
	Creds string
	// CA, Cert and Key are PEM files for TLS.
	CA, Cert, Key string
	// Token that the server asks for, such as natsd.Options.Token. Secret.
	Token string
	// User and Password are for servers with a user list. Password is secret.
	User, Password string
	// InProcess connects to an embedded server without a socket.
	InProcess nats.InProcessConnProvider

	// Tracer makes the spans of requests; nil makes none, trace context travels anyway.
	Tracer trace.Tracer
	// Metrics is where the bus registers its metrics; nil for nowhere.
	Metrics prometheus.Registerer
	// OnFault is told of errors that belong to no request: ErrPermission,
	// ErrSlowConsumer (wrapped). It must not block. May be nil.
	OnFault func(error)
}

// Conn is a process's one connection. Its methods may be called from any goroutine.
type Conn struct {
	cfg     Config
	log     *slog.Logger
	tracer  trace.Tracer
	metrics *metrics
	nc      *nats.Conn
	js      jetstream.JetStream // of our own region
	hub     jetstream.JetStream // of the hub

	link     atomic.Pointer[link]
	away     seldom             // limits lines about a server that cannot be reached
	refusals map[string]*seldom // limits lines about faults, by kind; never changes
	subjects sync.Map           // route → subject, checked once
}

// link is one life of the connection.
type link struct {
	up   chan struct{}   // closed once connected
	once sync.Once       // of closing up
	ctx  context.Context // done when this life is over; the cause is ErrDisconnected
	down context.CancelCauseFunc
}

func newLink() *link {
	l := &link{up: make(chan struct{})}
	l.ctx, l.down = context.WithCancelCause(context.Background())
	return l
}

// Connect starts connecting and returns at once, also while no server can be
// reached; Connected tells. The error is one of configuration.
func Connect(cfg Config, log *slog.Logger) (*Conn, error) {
	if err := names.CheckToken("connection", cfg.Name); err != nil {
		return nil, err
	}
	if cfg.Region != "" {
		if err := names.CheckToken("region", cfg.Region); err != nil {
			return nil, err
		}
	}
	if cfg.Hub != "" {
		if err := names.CheckToken("hub", cfg.Hub); err != nil {
			return nil, err
		}
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Conn{
		cfg: cfg, log: log, tracer: cfg.Tracer, metrics: newMetrics(cfg.Metrics),
		refusals: map[string]*seldom{faultPermission: {}, faultSlow: {}, faultOther: {}},
	}
	if c.tracer == nil {
		c.tracer = noop.NewTracerProvider().Tracer("")
	}
	c.link.Store(newLink())
	nc, err := nats.Connect(cfg.URL, c.options()...)
	if err != nil {
		return nil, fmt.Errorf("connecting to NATS: %w", err)
	}
	c.nc = nc
	if c.js, err = jetstream.New(nc, jetstream.WithDefaultTimeout(apiTimeout)); err != nil {
		nc.Close()
		return nil, fmt.Errorf("opening JetStream: %w", err)
	}
	if c.hub = c.js; cfg.Hub != "" && cfg.Hub != cfg.Region {
		if c.hub, err = c.domain(cfg.Hub); err != nil {
			nc.Close()
			return nil, err
		}
	}
	return c, nil
}

// domain is the JetStream of a region.
func (c *Conn) domain(region string) (jetstream.JetStream, error) {
	js, err := jetstream.NewWithDomain(c.nc, region, jetstream.WithDefaultTimeout(apiTimeout))
	if err != nil {
		return nil, fmt.Errorf("opening JetStream of region %s: %w", region, err)
	}
	return js, nil
}

func (c *Conn) options() []nats.Option {
	opts := []nats.Option{
		nats.Name(c.cfg.Name),
		nats.CustomInboxPrefix(names.InboxPrefix(c.cfg.Name)),
		nats.Timeout(dialTimeout),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectWait/2, reconnectWait),
		// Nothing is sent late: a question from before the cut has been answered
		// by the fail mode long since.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(pingsOut),
		// A credential that is refused now may be renewed on disk by the next try.
		nats.IgnoreAuthErrorAbort(),
		nats.ConnectHandler(func(nc *nats.Conn) { c.onConnect(nc, "connected to nats") }),
		nats.ReconnectHandler(func(nc *nats.Conn) { c.onConnect(nc, "reconnected to nats") }),
		nats.DisconnectErrHandler(c.onDisconnect),
		nats.ReconnectErrHandler(c.onReconnectError),
		nats.ErrorHandler(c.onError),
		nats.LameDuckModeHandler(c.onLameDuck),
	}
	if c.cfg.InProcess != nil {
		opts = append(opts, nats.InProcessServer(c.cfg.InProcess))
	}
	if c.cfg.Creds != "" {
		opts = append(opts, nats.UserCredentials(c.cfg.Creds))
	}
	if c.cfg.CA != "" {
		opts = append(opts, nats.RootCAs(c.cfg.CA))
	}
	if c.cfg.Cert != "" {
		opts = append(opts, nats.ClientCert(c.cfg.Cert, c.cfg.Key))
	}
	if c.cfg.Token != "" {
		opts = append(opts, nats.Token(c.cfg.Token))
	}
	if c.cfg.User != "" {
		opts = append(opts, nats.UserInfo(c.cfg.User, c.cfg.Password))
	}
	return opts
}

// Name is the configured name of this process.
func (c *Conn) Name() string { return c.cfg.Name }

// Connected says whether the connection stands now.
func (c *Conn) Connected() bool { return c.nc.IsConnected() }

// WaitConnected returns when the connection stands, or with ctx's cause.
func (c *Conn) WaitConnected(ctx context.Context) error {
	for {
		l := c.link.Load()
		select {
		case <-l.up:
			if l.ctx.Err() == nil {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		// The life that we saw is over; its successor is stored before it ends.
	}
}

// Close unsubscribes, lets running callbacks end, flushes, and closes, within ctx.
// Serve and follow functions should have returned before. It may be called twice.
func (c *Conn) Close(ctx context.Context) error {
	defer c.nc.Close()
	if !c.nc.IsConnected() {
		return nil // also when closed: there is nobody to flush to
	}
	closed := c.nc.StatusChanged(nats.CLOSED)
	if err := c.nc.Drain(); err != nil {
		if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrConnectionReconnecting) {
			return nil
		}
		return fmt.Errorf("draining NATS connection: %w", err)
	}
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("draining NATS connection: %w", context.Cause(ctx))
	}
}
