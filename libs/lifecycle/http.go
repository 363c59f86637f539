package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"usher.internal/libs/telemetry"
)

// Limits of the admin server: whoever asks it slowly is not worth a goroutine.
const (
	adminHeaderTimeout = 5 * time.Second
	adminTimeout       = 30 * time.Second
	adminStop          = 5 * time.Second
)

// Admin is the task that serves h on l until its context ends; it closes l.
func Admin(l net.Listener, h http.Handler, log *slog.Logger) Task {
	return Task{Name: "admin", Run: func(ctx context.Context) error {
		srv := &http.Server{
			Handler: h, ReadHeaderTimeout: adminHeaderTimeout,
			ReadTimeout: adminTimeout, WriteTimeout: adminTimeout,
			ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		}
		failed := make(chan error, 1)
		go func() { failed <- srv.Serve(l) }()
		log.Info("admin listens", slog.String(telemetry.Address, l.Addr().String()))
		select {
		case err := <-failed:
			return fmt.Errorf("serving %s: %w", l.Addr(), err)
		case <-ctx.Done():
		}
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), adminStop)
		defer cancel()
		err := srv.Shutdown(stop)
		if err != nil {
			err = errors.Join(err, srv.Close())
		}
		if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}}
}
