package policyfile

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
	"usher.internal/libs/telemetry"
)

// pollEvery is how soon a saved file is seen. Its content is read each time: editors that
// replace a file, and mounted volumes, make poor use of other signs.
const pollEvery = time.Second

// Watcher brings each new content of a file into force. A file with problems is told once and
// changes nothing.
type Watcher struct {
	// Path of the policy file.
	Path string
	// Author of the revisions that it makes.
	Author string
	Store  Store
	Keyer  *access.Keyer
	Log    *slog.Logger

	last []byte // the content that was looked at last
}

// Seen says that this content is in force already.
func (w *Watcher) Seen(content []byte) { w.last = content }

// Run looks once a second until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	readable := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		data, err := Read(w.Path)
		if err != nil {
			// Once, not each second: an editor may be between removing and writing it.
			if readable {
				w.Log.WarnContext(ctx, "policy file cannot be read, the policy in force stays", slog.Any(telemetry.Error, err))
			}
			readable = false
			continue
		}
		readable = true
		if string(data) != string(w.last) {
			w.take(ctx, data)
		}
	}
}

// take is one new content. Where Postgres is away it is tried again at the next look.
func (w *Watcher) take(ctx context.Context, data []byte) {
	p, err := Check(ctx, w.Path, data, w.Keyer)
	if err != nil {
		w.last = data
		Tell(ctx, w.Log, err)
		return
	}
	defer p.Close()
	revision, changed, err := ApplyFile(ctx, w.Store, p, w.Author, "changed on disk")
	if failed, ok := errors.AsType[*FailedError](err); ok {
		w.last = data
		Tell(ctx, w.Log, failed)
		return
	}
	if err != nil {
		w.Log.WarnContext(ctx, "policy file changed but cannot be stored yet", slog.Any(telemetry.Error, err))
		return
	}
	w.last = data
	w.warn(ctx, p)
	if changed {
		w.Log.InfoContext(ctx, "policy file changed and is in force", slog.Int64(telemetry.Revision, revision))
	}
}

func (w *Watcher) warn(ctx context.Context, p *Policy) {
	for _, problem := range p.Snapshot.Warnings {
		w.Log.WarnContext(ctx, "policy file", slog.String("problem", problem.String()))
	}
}

// Tell logs why a file is not used, a line for each problem.
func Tell(ctx context.Context, log *slog.Logger, err error) {
	var problems config.Problems
	if !errors.As(err, &problems) {
		log.ErrorContext(ctx, "policy file is not used, the policy in force stays", slog.Any(telemetry.Error, err))
		return
	}
	for _, p := range problems {
		log.ErrorContext(ctx, "policy file is not used, the policy in force stays", slog.String("problem", p.String()))
	}
}
