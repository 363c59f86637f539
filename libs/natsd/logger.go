package natsd

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats-server/v2/server"
)

// logger hands the server's lines to slog. A fatal line doesn't end the process, as
// the server's own logger would: it is reported to the owner.
type logger struct {
	log   *slog.Logger
	fatal func(error)
}

var _ server.Logger = logger{}

// Noticef logs start and stop chatter, which our own lines already tell, as debug.
func (l logger) Noticef(format string, v ...any) { l.line(slog.LevelDebug, format, v) }

// Warnf logs a warning of the server.
func (l logger) Warnf(format string, v ...any) { l.line(slog.LevelWarn, format, v) }

// Errorf logs an error of the server.
func (l logger) Errorf(format string, v ...any) { l.line(slog.LevelError, format, v) }

// Debugf logs a debug line of the server.
func (l logger) Debugf(format string, v ...any) { l.line(slog.LevelDebug, format, v) }

// Tracef drops protocol traces: they hold tokens of viewers.
func (l logger) Tracef(string, ...any) {}

// Fatalf logs the line and signals the failure through Server.Failed.
func (l logger) Fatalf(format string, v ...any) {
	l.line(slog.LevelError, format, v)
	l.fatal(fmt.Errorf("nats-server: "+format, v...))
}

func (l logger) line(level slog.Level, format string, v []any) {
	// The text goes into an attribute: messages of our logs are constant.
	l.log.Log(context.Background(), level, "nats-server", slog.String("text", fmt.Sprintf(format, v...)))
}
