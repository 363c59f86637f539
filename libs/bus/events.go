package bus

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"usher.internal/libs/telemetry"
)

// lameDuckSpread keeps all clients of a leaving server from moving at once.
const lameDuckSpread = 5 * time.Second

// Kinds of faults that belong to no request.
const (
	faultPermission = "permission"
	faultSlow       = "slow_consumer"
	faultDisconnect = "disconnect"
	faultOther      = "other"
)

func (c *Conn) onConnect(nc *nats.Conn, what string) {
	c.metrics.connected.Set(1)
	l := c.link.Load()
	l.once.Do(func() { close(l.up) })
	// In process, nats.go names its default URL, where nobody listens.
	address := "in process"
	if c.cfg.InProcess == nil {
		address = nc.ConnectedUrlRedacted()
	}
	c.log.Info(what, slog.String(telemetry.Address, address)) //nolint:sloglint // one of two constants
}

func (c *Conn) onDisconnect(_ *nats.Conn, err error) {
	c.metrics.connected.Set(0)
	c.metrics.faults.WithLabelValues(faultDisconnect).Inc()
	old := c.link.Swap(newLink())
	old.down(ErrDisconnected)
	if err == nil {
		c.log.Info("nats connection closed")
		return
	}
	c.log.Warn("nats connection lost", slog.Any(telemetry.Error, err))
}

func (c *Conn) onReconnectError(_ *nats.Conn, err error) {
	if c.away.allow() {
		c.log.Warn("nats cannot be reached", slog.Any(telemetry.Error, err))
	}
}

// onError hears what the server refuses long after the call that caused it.
func (c *Conn) onError(_ *nats.Conn, sub *nats.Subscription, err error) {
	kind, fault := faultOther, error(nil)
	switch {
	case errors.Is(err, nats.ErrPermissionViolation), errors.Is(err, nats.ErrAuthorization),
		errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		kind, fault = faultPermission, fmt.Errorf("%w: %w", ErrPermission, err)
	case errors.Is(err, nats.ErrSlowConsumer):
		kind, fault = faultSlow, fmt.Errorf("%w: %w", ErrSlowConsumer, err)
	}
	c.metrics.faults.WithLabelValues(kind).Inc()
	if c.refusals[kind].allow() { // a refused subject is refused with every request
		attrs := []any{slog.String(telemetry.Kind, kind), slog.Any(telemetry.Error, err)}
		if sub != nil {
			attrs = append(attrs, slog.String(telemetry.Subject, sub.Subject))
		}
		c.log.Error("nats reported an error", attrs...)
	}
	if fault != nil && c.cfg.OnFault != nil {
		c.cfg.OnFault(fault)
	}
}

// onLameDuck leaves a server that is about to stop before it throws us out.
func (c *Conn) onLameDuck(nc *nats.Conn) {
	wait := rand.N(lameDuckSpread)
	c.log.Info("nats server is leaving", slog.Duration("moving_in", wait))
	time.AfterFunc(wait, func() {
		_ = nc.ForceReconnect() // it fails only when the connection is closed
	})
}
