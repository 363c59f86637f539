package streamer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

var errCut = errors.New("the server is cut off")

// flushAt is how many waiting events do not wait for throttle_delay.
const flushAt = 100

// Faults are how likely, from 0 to 1, an event is lost, comes late (by up to Late of the real
// clock), comes twice, and whether those of one delivery come in any order.
type Faults struct {
	Lose, Delay, Repeat float64
	Late                time.Duration
	Reorder             bool
}

// event is one message to the sink, with when it may leave.
type event struct {
	body any
	due  time.Time
}

// sink delivers events: in arrays, after a delay, and again after an error until they are taken.
type sink struct {
	s    *server
	wake chan struct{}

	mu     sync.Mutex // guards all below
	rng    *rand.Rand
	faults Faults
	queue  []event
	sent   int
	single bool // one object a delivery, and no second try: a webhook
}

func newSink(s *server) *sink {
	return &sink{s: s, wake: make(chan struct{}, 1), rng: rand.New(rand.NewPCG(s.opts.Seed, 2)), faults: s.opts.Faults}
}

// SetFaults changes what happens to events from now on.
func (s *server) SetFaults(f Faults) {
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	s.sink.faults = f
}

// Sent is how many events were taken by the sink, repetitions included.
func (s *server) Sent() int {
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	return s.sink.sent
}

func (k *sink) add(body any) {
	if k.s.opts.Events == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.faults
	if k.rng.Float64() < f.Lose {
		return
	}
	e := event{body: body, due: time.Now()}
	if f.Late > 0 && k.rng.Float64() < f.Delay {
		e.due = e.due.Add(time.Duration(k.rng.Int64N(int64(f.Late))))
	}
	k.queue = append(k.queue, e)
	if k.rng.Float64() < f.Repeat {
		if f.Late > 0 {
			e.due = e.due.Add(time.Duration(k.rng.Int64N(int64(f.Late))))
		}
		k.queue = append(k.queue, e)
	}
	if len(k.queue) > flushAt {
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
}

// webhook makes it send one object at a time, and try once.
func (k *sink) webhook() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.single = true
}

// forget drops what waits: the server was killed.
func (k *sink) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.queue = nil
}

func (k *sink) waiting() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.queue)
}

func (k *sink) run() {
	pause := time.NewTimer(k.s.opts.Throttle)
	defer pause.Stop()
	for {
		select {
		case <-k.s.quit:
			return
		case <-pause.C:
		case <-k.wake:
		}
		next := k.s.opts.Throttle
		if !k.deliver() {
			next = k.s.opts.Resend
		}
		pause.Reset(next)
	}
}

// take removes what is due, and says whether it goes one by one.
func (k *sink) take() (due []event, single bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	var later []event
	for _, e := range k.queue {
		if e.due.After(now) {
			later = append(later, e)
		} else {
			due = append(due, e)
		}
	}
	k.queue = later
	if k.faults.Reorder {
		k.rng.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	}
	return due, k.single
}

// deliver sends what is due, and says whether it was taken.
func (k *sink) deliver() bool {
	due, single := k.take()
	if len(due) == 0 {
		return true
	}
	if single {
		for _, e := range due {
			k.post(e.body, 1)
		}
		return true
	}
	bodies := make([]any, len(due))
	for i, e := range due {
		bodies[i] = e.body
	}
	if k.post(bodies, len(due)) {
		return true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.queue = append(due, k.queue...)
	return false
}

func (k *sink) post(body any, n int) bool {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // a mistake in this package
	}
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, k.s.opts.Events, bytes.NewReader(text))
	if err != nil {
		panic(err) // a mistake in the test
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := k.s.send(r)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	if res.StatusCode/100 != 2 {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sent += n
	return true
}
