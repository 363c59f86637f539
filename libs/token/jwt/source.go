package jwt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxKeyText = 1 << 20
	// fileEvery is how soon a changed key file is seen. Its content is read each time: mounted
	// secrets make poor use of other signs.
	fileEvery = 5 * time.Second
	// cooldown is how long after a try nobody has keys read early again: tokens with invented
	// key ids must not make us a flood against the issuer.
	cooldown = 10 * time.Second
	// patience is the most that a question waits for keys.
	patience = 250 * time.Millisecond
	// firstRetry, doubled up to lastRetry, is the pause after a failure.
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// Memory keeps the last good key set of each address, so that a new revision of the policy
// does not forget them in the middle of the issuer's outage. The zero Memory is ready.
type Memory struct {
	mu   sync.Mutex // guards sets
	sets map[string]*keyset
}

// maxRemembered bounds addresses that an operator tried and left.
const maxRemembered = 64

func (m *Memory) get(url string) *keyset {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sets[url]
}

func (m *Memory) put(url string, s *keyset) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sets == nil || len(m.sets) >= maxRemembered && m.sets[url] == nil {
		m.sets = map[string]*keyset{}
	}
	m.sets[url] = s
}

// keyset is what was read at one time, immutable. text is kept in place of keys that were
// filtered by one check's algorithms.
type keyset struct {
	text []byte
	keys []key
	at   time.Time
}

// fresh reads keys again and again in the background.
type fresh struct {
	deps   Deps
	load   func(ctx context.Context) ([]byte, error)
	parse  func(text []byte) ([]key, error)
	every  time.Duration
	keep   time.Duration // how long keys that cannot be read again are trusted, 0: for ever
	jitter bool
	what   string // for logs
	kept   func(*keyset)

	set    atomic.Pointer[keyset]
	kick   chan struct{} // asks for an early read
	cancel context.CancelFunc
	done   chan struct{} // closed when the background work has ended

	mu      sync.Mutex    // guards what follows
	tried   time.Time     // when the last try began
	reading bool          // a try is under way, or asked for
	round   chan struct{} // closed when the try that is under way, or the next one, ends
}

func (f *fresh) start() {
	f.kick, f.done, f.round = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	f.tried, f.reading = f.deps.Now(), true // the first try comes at once: who asks meanwhile waits for it
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(context.Background())
	go f.run(ctx)
}

// run reads until ctx ends. The log has a line when that begins to fail, and one when it works
// again.
func (f *fresh) run(ctx context.Context) {
	defer close(f.done)
	failures := 0
	for {
		err := f.read(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && failures == 0:
			f.deps.Log.WarnContext(ctx, "keys cannot be read, those of the last time stay",
				slog.String("check", f.deps.Check), slog.String("source", f.what), slog.Any("error", err))
		case err == nil && failures > 0:
			f.deps.Log.InfoContext(ctx, "keys can be read again",
				slog.String("check", f.deps.Check), slog.String("source", f.what))
		}
		if failures++; err == nil {
			failures = 0
		}
		timer := time.NewTimer(f.pause(failures))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-f.kick:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// pause is how long to wait: after failures in a row less than usual.
func (f *fresh) pause(failures int) time.Duration {
	d := f.every
	if failures > 0 {
		d = min(d, lastRetry, firstRetry<<min(failures-1, 10))
	}
	if f.jitter {
		d += time.Duration(float64(d) * 0.1 * (rand.Float64()*2 - 1)) // workers do not come all at once
	}
	return d
}

// read is one try.
func (f *fresh) read(ctx context.Context) error {
	f.mu.Lock()
	f.tried, f.reading = f.deps.Now(), true
	began, round := f.tried, f.round
	f.mu.Unlock()
	err := f.take(ctx, began)
	f.mu.Lock()
	f.reading, f.round = false, make(chan struct{})
	f.mu.Unlock()
	close(round)
	return err
}

func (f *fresh) take(ctx context.Context, at time.Time) error {
	old := f.set.Load()
	text, err := f.load(ctx)
	if err != nil {
		return err
	}
	if old != nil && bytes.Equal(old.text, text) {
		f.put(&keyset{old.text, old.keys, at})
		return nil
	}
	keys, err := f.parse(text)
	if err != nil {
		return err
	}
	f.put(&keyset{text, keys, at})
	return nil
}

func (f *fresh) put(s *keyset) {
	f.set.Store(s)
	f.deps.Fetched(f.deps.Check, s.at)
	if f.kept != nil {
		f.kept(s)
	}
}

// keys implements source.
func (f *fresh) keys() []key {
	s := f.set.Load()
	if s == nil || f.keep > 0 && f.deps.Now().Sub(s.at) > f.keep {
		return nil
	}
	return s.keys
}

// early implements source: of all who ask within a cooldown one has the keys read, and all wait
// for that one try.
func (f *fresh) early(ctx context.Context) {
	f.mu.Lock()
	round, under := f.round, f.reading
	if !under {
		now := f.deps.Now()
		if now.Sub(f.tried) < cooldown {
			f.mu.Unlock()
			return
		}
		// From here on it is under way for all who come.
		f.tried, f.reading = now, true
	}
	f.mu.Unlock()
	if !under {
		select {
		case f.kick <- struct{}{}:
		default: // it was asked for already
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-round:
	case <-ctx.Done():
	}
}

// close implements source.
func (f *fresh) close() {
	f.cancel()
	<-f.done
}

// openFile reads a key file, and again when it changes. A file that cannot be read at first is
// an error; later the old keys stay.
func openFile(o *Options, d Deps) (source, error) {
	f := &fresh{deps: d, every: fileEvery, what: "key file"}
	f.load = func(context.Context) ([]byte, error) { return readFile(o.KeyFile) }
	f.parse = func(text []byte) ([]key, error) { return parseKeys(text, o.Algorithms, false) }
	if err := f.take(context.Background(), d.Now()); err != nil {
		return nil, fmt.Errorf("key_file %s: %w", o.KeyFile, err)
	}
	f.start()
	return f, nil
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	return readAll(file)
}

func readAll(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxKeyText+1))
	if err == nil && len(text) > maxKeyText {
		err = fmt.Errorf("longer than %d bytes", maxKeyText)
	}
	return text, err
}

// openRemote fetches a key set in the background. It begins with what is remembered of it.
func openRemote(o *Options, d Deps) source {
	f := &fresh{deps: d, every: o.JWKS.Refresh.Duration(), keep: o.JWKS.Keep.Duration(), jitter: true, what: "key set"}
	client := newClient(o, d.HTTP)
	f.load = func(ctx context.Context) ([]byte, error) { return fetch(ctx, client, o.JWKS.URL) }
	f.parse = func(text []byte) ([]key, error) { return parseKeys(text, o.Algorithms, true) }
	if old := d.Memory.get(o.JWKS.URL); old != nil {
		// Another check may have filtered its keys by other algorithms.
		if keys, err := f.parse(old.text); err == nil {
			f.put(&keyset{old.text, keys, old.at})
		}
	}
	f.kept = func(s *keyset) { d.Memory.put(o.JWKS.URL, s) }
	f.start()
	return f
}

func newClient(o *Options, transport http.RoundTripper) *http.Client {
	if transport == nil {
		transport = &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, DisableKeepAlives: true}
	}
	return &http.Client{
		Transport: transport,
		Timeout:   o.JWKS.Timeout.Duration(),
		// Keys come from where the policy says and from nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func fetch(ctx context.Context, c *http.Client, address string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("the address cannot be asked")
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	res, err := c.Do(r)
	if err != nil {
		// An url.Error repeats the address, in whose query a key may stand.
		var outer *url.Error
		if errors.As(err, &outer) {
			err = outer.Err
		}
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the issuer answered %d", res.StatusCode)
	}
	return readAll(res.Body)
}

func looksLikeKey(s string) bool { return strings.Contains(s, "-----BEGIN ") }
