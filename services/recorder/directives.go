package recorder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/admission"
	"usher.internal/libs/bus"
	"usher.internal/libs/directive"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
)

const (
	// restateEvery is how often it is looked whether the control stream was made anew.
	restateEvery   = 15 * time.Second
	restateRetry   = time.Second
	restateTimeout = 5 * time.Minute
	// compareEvery is how often database and stream are compared as a whole.
	compareEvery = time.Hour
	// restateAge is the age at which what the stream holds is published again: it drops messages
	// after a day, and a ban may have no end.
	restateAge = 6 * time.Hour
	// revokedFor is how long revocations are restated: an hour longer than the stream keeps what
	// they revoke.
	revokedFor = 25 * time.Hour

	enforceEvery   = time.Second
	enforceTimeout = 10 * time.Second
	// enforceWindow is how long after a directive sessions may open that a worker judged without it:
	// longer than its way to the workers and a question's life together.
	enforceWindow = 30 * time.Second

	untoldBatch = 256
)

// DirectiveStore is where bans and overrides are kept for good.
type DirectiveStore interface {
	// Untold are directives whose latest state was not published yet, Told notes that it was.
	Untold(ctx context.Context, limit int) ([]pgstore.DirectiveRow, error)
	Told(ctx context.Context, rows []pgstore.DirectiveRow) error
	// Restated are all in force and those that were revoked within the last since.
	Restated(ctx context.Context, since time.Duration) ([]pgstore.DirectiveRow, error)
	// Adopt takes in what the control stream knows better.
	Adopt(ctx context.Context, rows []pgstore.DirectiveRow) (int, error)
	// Enforce ends sessions that a directive of the last window refuses and that live all the same.
	Enforce(ctx context.Context, window time.Duration) ([]admission.Ended, error)
}

// directiveStream is the control stream; *bus.Conn is one.
type directiveStream interface {
	PublishDirective(ctx context.Context, m *usherv1.Control) error
	RestateDirective(ctx context.Context, m *usherv1.Control, held bus.Held) error
	ControlIncarnation(ctx context.Context) (time.Time, error)
	ReadDirectives(ctx context.Context, kind string, f func(bus.Held)) error
}

// herald spreads bans and overrides, and keeps the control stream and the database from losing
// any. Several may do so at once: a directive changes only by being revoked, and a revocation is never
// replaced by an older state, neither there nor here. So a database that was restored from a backup takes
// nothing newer away from the stream: it is told what it lacks.
type herald struct {
	store   DirectiveStore
	stream  directiveStream
	log     *slog.Logger
	metrics *metrics

	// What follows belongs to the one goroutine that calls restate.
	incarnation time.Time // of the stream at the last comparison
	compared    time.Time
}

// message is the latest state of a stored directive.
func message(r *pgstore.DirectiveRow) *usherv1.Control {
	if r.RevokedAt != nil {
		return r.Control(true, *r.RevokedAt)
	}
	return r.Control(false, r.At)
}

// tell publishes what operators have ordered since the last look.
func (h *herald) tell(ctx context.Context) error {
	for {
		rows, err := h.store.Untold(ctx, untoldBatch)
		if err != nil || len(rows) == 0 {
			return err
		}
		told := make([]pgstore.DirectiveRow, 0, len(rows))
		for i := range rows {
			err = h.stream.PublishDirective(ctx, message(&rows[i]))
			if errors.Is(err, bus.ErrRevoked) {
				err = nil // by a newer state than this database has; restate adopts it
			}
			if err != nil {
				h.metrics.control.WithLabelValues("failed").Inc()
				err = fmt.Errorf("telling of directive %s: %w", rows[i].ID, err)
				break
			}
			h.metrics.control.WithLabelValues("published").Inc()
			told = append(told, rows[i])
		}
		if len(told) > 0 {
			err = errors.Join(err, h.store.Told(ctx, told))
		}
		if err != nil || len(rows) < untoldBatch {
			return err
		}
	}
}

// enforce ends who slipped in while a directive was on its way to the workers.
func (h *herald) enforce(ctx context.Context) error {
	_, err := h.store.Enforce(ctx, enforceWindow)
	return err
}

// restate compares database and stream, after the stream was made anew and every hour.
func (h *herald) restate(ctx context.Context) error {
	incarnation, err := h.stream.ControlIncarnation(ctx)
	if err != nil {
		return err
	}
	if incarnation.Equal(h.incarnation) && time.Since(h.compared) < compareEvery {
		return nil
	}
	held, err := h.held(ctx)
	if err != nil {
		return err
	}
	rows, err := h.store.Restated(ctx, revokedFor)
	if err != nil {
		return err
	}
	if err := h.compare(ctx, rows, held); err != nil {
		return err
	}
	h.incarnation, h.compared = incarnation, time.Now()
	return nil
}

func (h *herald) held(ctx context.Context) (map[uuid.UUID]bus.Held, error) {
	held := make(map[uuid.UUID]bus.Held)
	for _, kind := range []directive.Kind{directive.Ban, directive.Override} {
		err := h.stream.ReadDirectives(ctx, string(kind), func(m bus.Held) {
			if id, err := uuid.FromBytes(m.Control.GetDirective().GetId()); err == nil {
				held[id] = m
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return held, nil
}

// compare publishes what the stream lacks, what it holds in an older state and what it will drop soon,
// and adopts what the database lacks.
func (h *herald) compare(ctx context.Context, rows []pgstore.DirectiveRow, held map[uuid.UUID]bus.Held) error {
	var adopt []pgstore.DirectiveRow
	published := 0
	for i := range rows {
		r := &rows[i]
		m := held[r.ID]
		delete(held, r.ID)
		there := m.Control.GetDirective()
		switch {
		case there.GetRevoked() && r.RevokedAt == nil:
			adopt = h.adoptable(ctx, adopt, m)
			continue
		case there != nil && there.GetRevoked() == (r.RevokedAt != nil) && (r.RevokedAt != nil || time.Since(m.At) < restateAge):
			continue
		}
		if err := h.stream.RestateDirective(ctx, message(r), m); err != nil && !errors.Is(err, bus.ErrRevoked) {
			return fmt.Errorf("restating directive %s: %w", r.ID, err)
		}
		published++
	}
	for _, m := range held {
		adopt = h.adoptable(ctx, adopt, m)
	}
	if published > 0 {
		h.log.InfoContext(ctx, "bans and overrides restated", slog.Int(telemetry.Count, published))
	}
	return h.adopt(ctx, adopt)
}

// adoptable adds what the stream holds, unless it is over by itself.
func (h *herald) adoptable(ctx context.Context, list []pgstore.DirectiveRow, m bus.Held) []pgstore.DirectiveRow {
	d, revoked, err := directive.FromControl(m.Control)
	if err != nil {
		h.log.WarnContext(ctx, "control stream holds a directive that is not understood", slog.Any(telemetry.Error, err))
		return list
	}
	r := pgstore.DirectiveRow{Directive: d}
	if revoked {
		at := time.UnixMilli(m.Control.GetAtUnixMs()).UTC()
		r.RevokedAt, r.RevokedBy, r.RevokedReason = &at, "unknown", "revoked before this database was restored"
	} else if !d.Active(time.Now()) {
		return list
	}
	return append(list, r)
}

func (h *herald) adopt(ctx context.Context, rows []pgstore.DirectiveRow) error {
	if len(rows) == 0 {
		return nil
	}
	n, err := h.store.Adopt(ctx, rows)
	if n > 0 {
		h.log.WarnContext(ctx, "control stream knew bans and overrides better than the database, it was restored from a backup: they stay in force",
			slog.Int(telemetry.Count, n))
	}
	return err
}
