package edge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/bus"
	"usher.internal/libs/lifecycle"
	"usher.internal/libs/telemetry"
)

// closeTime is what the connection to NATS gets to send what it holds.
const closeTime = 5 * time.Second

// Main runs an edge as a process of its own until ctx ends: it opens what the
// configuration names, serves health and metrics, and closes all of it again.
func Main(ctx context.Context, cfg Config, t *telemetry.Telemetry) (err error) {
	defer lifecycle.Headroom()()
	keyer, err := access.LoadKeyer(cfg.ClusterKey)
	if err != nil {
		return err
	}
	token, err := cfg.NATS.token()
	if err != nil {
		return err
	}
	conn, err := bus.Connect(bus.Config{
		Name: cfg.Name, Region: cfg.Region, Hub: cfg.Hub, URL: cfg.NATS.URL,
		Creds: cfg.NATS.Creds, CA: cfg.NATS.CA, Cert: cfg.NATS.Cert, Key: cfg.NATS.Key, Token: token,
		Tracer: t.Tracer("usher.internal/libs/bus"), Metrics: t.Registry,
	}, t.Log)
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		err = errors.Join(err, conn.Close(end))
	}()
	health := new(lifecycle.Health)
	s, err := New(cfg, Deps{Bus: conn, Keyer: keyer, Telemetry: t, Health: health})
	if err != nil {
		return err
	}
	var tasks []lifecycle.Task
	if cfg.Admin != "" {
		l, err := net.Listen("tcp", cfg.Admin)
		if err != nil {
			return fmt.Errorf("admin: %w", err)
		}
		// First in, last out: readiness is asked for until the end.
		tasks = append(tasks, lifecycle.Admin(l, lifecycle.AdminMux(health, t.Registry), t.Log))
	}
	return lifecycle.Run(ctx, t.Log, append(tasks, lifecycle.Task{Name: "edge", Run: s.Run})...)
}

// token is what the NATS server asks for, "" where it asks for none.
func (n *NATS) token() (string, error) {
	if n.Token.IsZero() {
		return "", nil
	}
	token, err := n.Token.Resolve()
	if err != nil {
		return "", fmt.Errorf("nats token: %w", err)
	}
	return token, nil
}
