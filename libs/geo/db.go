package geo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// MaxFile bounds a database; the largest that are sold have a tenth of it.
	MaxFile = 1 << 30
	// pollEvery is how often files are looked at for changes.
	pollEvery = 5 * time.Second
	extension = ".mmdb"
)

// DB looks places up in several files: each tells what those before it do not know. It is
// safe for concurrent use, also while files are read again.
type DB struct {
	log    *slog.Logger
	loaded atomic.Pointer[[]*database]

	paths []string

	mu    sync.Mutex // guards files
	files []*file    // in the order in which they are asked
}

type file struct {
	path string
	size int64
	time time.Time
	told bool // that it cannot be read
	db   *database
}

// Open reads the files. A path that does not end in .mmdb is a directory and stands for all
// such files in it, also for those that come later. A file that cannot be read is told in the
// log and tried again by Run: country rules match nothing meanwhile. Without paths nothing is
// ever found.
func Open(ctx context.Context, paths []string, log *slog.Logger) *DB {
	d := &DB{log: log, paths: paths}
	d.loaded.Store(new([]*database))
	d.Poll(ctx)
	return d
}

// Lookup finds the place of an address.
func (d *DB) Lookup(ip netip.Addr) Place {
	var p Place
	if !ip.IsValid() {
		return p
	}
	for _, db := range *d.loaded.Load() {
		if p.merge(db.find(ip)); p.complete() {
			break
		}
	}
	return p
}

// Databases is how many files can be looked into.
func (d *DB) Databases() int { return len(*d.loaded.Load()) }

// Built is when the oldest of the databases was made, the zero Time without any: addresses
// change hands, and a database that nobody renews grows wrong.
func (d *DB) Built() time.Time {
	var oldest time.Time
	for _, db := range *d.loaded.Load() {
		if built := db.reader.Metadata.BuildTime(); oldest.IsZero() || built.Before(oldest) {
			oldest = built
		}
	}
	return oldest
}

// Run reads files again when they have changed, until ctx ends.
func (d *DB) Run(ctx context.Context) error {
	every := time.NewTicker(pollEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
			d.Poll(ctx)
		}
	}
}

// Poll looks once at every file, and reads those that have changed. A file that has
// vanished or is broken keeps its last content.
func (d *DB) Poll(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gather()
	changed := false
	for _, f := range d.files {
		fresh, err := f.refresh()
		switch {
		case err != nil && !f.told:
			f.told = true
			d.log.ErrorContext(ctx, "country database cannot be read", slog.String("file", f.path),
				slog.Bool("old_one_stays", f.db != nil), slog.Any("error", err))
		case err == nil && fresh:
			changed = true
			d.log.InfoContext(ctx, "country database read", slog.String("file", f.path), slog.Time("built", f.db.reader.Metadata.BuildTime()))
		}
	}
	if !changed {
		return
	}
	loaded := make([]*database, 0, len(d.files))
	for _, f := range d.files {
		if f.db != nil {
			loaded = append(loaded, f.db)
		}
	}
	d.loaded.Store(&loaded)
}

// gather adds the files that are not known yet, in the order of the paths.
func (d *DB) gather() {
	known := make(map[string]*file, len(d.files))
	for _, f := range d.files {
		known[f.path] = f
	}
	var files []*file
	add := func(path string) {
		f := known[path]
		if f == nil {
			f = &file{path: path}
		}
		files = append(files, f)
		delete(known, path)
	}
	for _, path := range d.paths {
		if filepath.Ext(path) == extension {
			add(path)
			continue
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			continue // nothing was put there yet
		}
		for _, entry := range entries {
			if filepath.Ext(entry.Name()) == extension {
				add(filepath.Join(path, entry.Name()))
			}
		}
	}
	for _, f := range d.files {
		if known[f.path] != nil && f.db != nil { // gone from its directory
			files = append(files, f)
		}
	}
	d.files = files
}

// refresh reads the file if it has changed since it was last tried.
func (f *file) refresh() (fresh bool, err error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return false, err
	}
	if info.Size() == f.size && info.ModTime().Equal(f.time) {
		return false, nil
	}
	// Also a broken file is not tried again before it changes.
	f.size, f.time = info.Size(), info.ModTime()
	if !info.Mode().IsRegular() {
		return false, errors.New("it is no regular file")
	}
	content, err := read(f.path)
	if err != nil {
		return false, err
	}
	db, err := parse(content)
	if err != nil {
		return false, fmt.Errorf("it is no database of MaxMind's format: %w", err)
	}
	f.db, f.told = db, false
	return true, nil
}

func read(path string) ([]byte, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // it was only read
	content, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err == nil && len(content) > MaxFile {
		err = fmt.Errorf("it has more than %d bytes", MaxFile)
	}
	return content, err
}
