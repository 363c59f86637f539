package edge

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// asker is a server that can be told to ask anew.
type asker struct {
	*server
	mu    sync.Mutex // guards told
	told  []string
	fault error
}

func (a *asker) Reauth(_ context.Context, stream string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told = append(a.told, stream)
	return a.fault
}

func (a *asker) streams() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := slices.Clone(a.told)
	slices.Sort(list)
	return list
}

func flussonicRequest(id, stream string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/v1/flussonic/fl1?name="+stream+"&ip=203.0.113.7&token=t&request_type=update_session&session_id="+id, nil)
	r.RemoteAddr = "10.3.0.1:4000"
	return r
}

// TestANodeIsToldToAskAnewWhereARuleChanged: only about streams whose rule judges differently now, and
// the questions that come then go to a worker.
func TestANodeIsToldToAskAnewWhereARuleChanged(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		n := &asker{server: newServer()}
		b.attach(t, "fl1", n)
		p := b.pollers.of("fl1")
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { p.reauth(ctx, n) })
		revise := func(digests ...uint32) {
			next := projection()
			for i, v := range next.GetStreams() {
				v.Digest = digests[i]
			}
			for _, v := range next.GetNodes() {
				v.Control = controlView(v.GetName() == "fl1")
			}
			old := b.view.Load()
			b.setPolicy(t, next)
			b.rejudge(old, b.view.Load())
			time.Sleep(time.Minute)
		}
		revise(1, 2, 3, 4)
		ids := map[string]string{
			"bbc": "6217fd62-16da-4206-9da9-0173d7552a14", "cnn": "6217fd62-16da-4206-9da9-0173d7552a15",
			"closed/a": "6217fd62-16da-4206-9da9-0173d7552a16",
		}
		for stream, id := range ids {
			wantStatus(t, stream, b.ask(flussonicRequest(id, stream)), http.StatusOK)
		}
		b.ask(segment("/hls/a/i.m3u8?token=t")) // of a node that cannot be told
		wantAsked(t, "at first", b, 4)
		revise(1, 2, 3, 4)
		if got := n.streams(); len(got) != 0 {
			t.Errorf("told of %v, want none: nothing has changed", got)
		}
		revise(1, 2, 3, 5)
		if got, want := n.streams(), []string{"bbc", "cnn"}; !slices.Equal(got, want) {
			t.Errorf("told of %v, want %v", got, want)
		}
		for stream, id := range ids {
			wantStatus(t, stream, b.ask(flussonicRequest(id, stream)), http.StatusOK)
		}
		wantAsked(t, "asked anew", b, 6)
		revise(0, 0, 0, 0)
		if got := n.streams(); len(got) != 2 {
			t.Errorf("told of %v by a revision that tells nothing", got)
		}
		stop()
		running.Wait()
	})
}
