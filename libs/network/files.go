package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"
)

const (
	// MaxFile bounds a list's file: about two million networks.
	MaxFile = 32 << 20
	// pollEvery is how often files are looked at for changes.
	pollEvery = 2 * time.Second
	// namedLines is how many bad lines a message names.
	namedLines = 10
)

var errTooLong = fmt.Errorf("it has more than %d bytes", MaxFile)

// Files are the lists that come from files, shared by all who ask for the same path. A file
// that changes is read again by Run; one that vanishes or cannot be read keeps the last
// content, with a warning. Safe for concurrent use.
type Files struct {
	log *slog.Logger

	mu    sync.Mutex // guards files, and what each knows of its file
	files map[string]*file
}

type file struct {
	list *List
	seen stamp
	lost bool // told that it cannot be read
}

// stamp tells whether a file has changed.
type stamp struct {
	size     int64
	modified time.Time
}

// NewFiles has no files yet.
func NewFiles(log *slog.Logger) *Files {
	return &Files{log: log, files: map[string]*file{}}
}

// Open gives the list of a file, reading it at the first time. The error is the file's: a
// list that was never read has no content that could stand for it.
func (f *Files) Open(path string) (*List, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known, ok := f.files[path]; ok {
		return known.list, nil
	}
	fresh := &file{list: new(List)}
	if err := f.read(path, fresh); err != nil {
		return nil, fmt.Errorf("reading the networks of %s: %w", path, err)
	}
	f.files[path] = fresh
	return fresh.list, nil
}

// Run reads files again when they have changed, until ctx ends.
func (f *Files) Run(ctx context.Context) error {
	every := time.NewTicker(pollEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
			f.Poll(ctx)
		}
	}
}

// Poll looks once at every file, and reads those that have changed.
func (f *Files) Poll(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for path, known := range f.files {
		info, err := os.Stat(path)
		if err == nil && known.seen == stampOf(info) {
			known.lost = false
			continue
		}
		if err == nil {
			err = f.read(path, known)
		}
		switch {
		case err == nil:
			known.lost = false
			f.log.InfoContext(ctx, "network list read again", slog.String("file", path), slog.Int("networks", known.list.Size()))
		case !known.lost:
			known.lost = true
			f.log.WarnContext(ctx, "network list cannot be read, its last content stays", slog.String("file", path), slog.Any("error", err))
		}
	}
}

// read takes over a file's content; on error the list stays as it is.
func (f *Files) read(path string, into *file) error {
	r, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // it was only read
	info, err := r.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is no regular file")
	}
	text, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return err
	}
	if len(text) > MaxFile {
		return errTooLong
	}
	prefixes, bad := Parse(text)
	if len(bad) > 0 {
		f.log.Warn("network list has lines that are no networks, they are left out", slog.String("file", path),
			slog.Int("bad", len(bad)), slog.Any("lines", bad[:min(len(bad), namedLines)]))
	}
	into.list.set(prefixes)
	into.seen = stampOf(info)
	return nil
}

func stampOf(info os.FileInfo) stamp { return stamp{info.Size(), info.ModTime()} }
