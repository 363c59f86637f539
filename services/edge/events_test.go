package edge

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"usher.internal/libs/telemetry"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/edgetest"
)

// post delivers events to a node, from its address.
func post(path, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.RemoteAddr = "10.3.0.1:4000"
	if strings.HasPrefix(path, "/v1/astra/") {
		r.RemoteAddr = "10.1.0.9:4000"
	}
	return r
}

const flEvents = "/v1/flussonic/fl1/events"

// flEvent is one event of a session as Flussonic writes it, ago before now by a clock that is ahead by off.
func flEvent(name, id string, ago, off time.Duration, more string) string {
	at := time.Now().Add(off - ago).UnixMilli()
	field := "updated_at"
	if name == "play_closed" {
		field = "closed_at"
	}
	return fmt.Sprintf(`{"event": %q, "id": %q, "media": "bbc", "type": "play", "utc_ms": %d, %q: %d%s}`, name, id, at, field, at, more)
}

// deliver posts and says what it was answered.
func (b *bench) deliver(r *http.Request) int {
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	return w.Code
}

func TestFlussonicsEvents(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		w := &sweeper{s: b.Service}
		b.ask(flussonicSession(""))
		for range 10 {
			time.Sleep(time.Minute)
			if got := b.deliver(post(flEvents, "["+flEvent("play_opened", flSession, time.Second, 0, "")+","+
				flEvent("play_updated", flSession, time.Second, 0, `, "bytes": 5000, "duration": 60`)+"]")); got != http.StatusOK {
				t.Fatalf("status %d", got)
			}
			b.round(t, w)
		}
		if b.table.count.Load() != 1 {
			t.Fatal("a session that its node says is playing was dropped")
		}
		bad := `[{"event": "play_closed"}, 5, {"event": "play_closed", "id": "` + strings.Repeat("x", 300) + `"}, ` +
			flEvent("play_closed", flSession, time.Second, 0, `, "bytes": 9000, "duration": 600, "country": "DE", "reason": {"code": "client"}`) + `, {"event": "pulse"}]`
		if got := b.deliver(post(flEvents, bad)); got != http.StatusOK {
			t.Fatalf("bad neighbours: status %d", got)
		}
		b.round(t, w)
		signs := b.workers.Signs()
		if s := signs[len(signs)-1]; !s.GetClose() || s.GetReason() != "stopped" || s.GetBytes() != 9000 {
			t.Errorf("sign = %v, want a close", s)
		}
		if totals := b.journal.Totals(); len(totals) != 1 || totals[0].GetDetail() != "client" || totals[0].GetPlayingMs() != 600_000 {
			t.Errorf("totals = %v", totals)
		}
	})
}

// TestClocksThatAreOff: a session that is closed a moment after its question is closed, whatever
// its node's clock says; a late end is late by any clock.
func TestClocksThatAreOff(t *testing.T) {
	t.Parallel()
	for _, off := range []time.Duration{0, 20 * time.Second, -20 * time.Second, time.Hour, -3 * time.Hour} {
		timed(t, func(t *testing.T, b *bench) {
			b.deliver(post(flEvents, flEvent("play_updated", "0d3c1f5e-0000-4000-8000-00000000cafe", 0, off, "")))
			b.ask(flussonicSession(""))
			time.Sleep(time.Second)
			b.deliver(post(flEvents, flEvent("play_closed", flSession, 0, off, "")))
			if b.table.count.Load() != 0 && off > -time.Hour {
				t.Errorf("clock off by %v: not closed", off)
			}
			b.ask(flussonicSession(""))
			time.Sleep(time.Minute)
			b.ask(flussonicSession(updateSession))
			b.deliver(post(flEvents, flEvent("play_closed", flSession, 40*time.Second, off, "")))
			if b.table.count.Load() != 1 {
				t.Errorf("clock off by %v: closed by an end that it outlived", off)
			}
		})
	}
}

func TestAstrasWebhook(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		time.Sleep(time.Hour)
		w := &sweeper{s: b.Service}
		const hook = "/v1/astra/n1/events"
		b.ask(astraRequest("token=1"))
		time.Sleep(2 * time.Minute)
		for what, body := range map[string]string{
			"of the one that had the number before": `{"client_id": 1001, "channel_id": "a001", "addr": "10.0.0.5", "uptime": 1800}`,
			"of another channel":                    `{"client_id": 1001, "channel_id": "a002", "uptime": 119}`,
			"of another session":                    `{"client_id": 1002, "channel_id": "a001", "uptime": 119}`,
		} {
			if got := b.deliver(post(hook, body)); got != http.StatusOK || b.table.count.Load() != 1 {
				t.Errorf("the end %s: status %d, %d sessions", what, got, b.table.count.Load())
			}
		}
		if got := b.deliver(post(hook, `{"client_id": 1001, "channel_id": "a001", "addr": "10.0.0.5", "uptime": 119}`)); got != http.StatusOK || b.table.count.Load() != 0 {
			t.Fatalf("status %d, %d sessions, want its seat given back", got, b.table.count.Load())
		}
		b.round(t, w)
		closed := 0
		for _, s := range b.workers.Signs() {
			if len(s.GetSessionId()) > 0 && s.GetClose() && s.GetReason() == "stopped" {
				closed++
			}
		}
		if closed != 1 {
			t.Errorf("%d closes, want 1", closed)
		}
		if totals := b.journal.Totals(); len(totals) != 1 || totals[0].GetPlayingMs() != 119_000 {
			t.Errorf("totals = %v", totals)
		}
	})
}

func TestEventsThatAreNotTaken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.ask(flussonicSession(""))
	end := flEvent("play_closed", flSession, 0, 0, "")
	get := post(flEvents, "")
	get.Method = http.MethodGet
	far := post(flEvents, end)
	far.RemoteAddr = "10.9.9.9:1"
	packed := post(flEvents, end)
	packed.Header.Set("Content-Encoding", "gzip")
	for what, c := range map[string]struct {
		r    *http.Request
		want int
	}{
		"a GET":                       {get, http.StatusMethodNotAllowed},
		"another address":             {far, http.StatusForbidden},
		"an unknown node":             {post("/v1/flussonic/nobody/events", end), http.StatusForbidden},
		"another kind of node":        {post("/v1/flussonic/n1/events", end), http.StatusForbidden},
		"no JSON":                     {post(flEvents, "event=play_closed&id="+flSession), http.StatusBadRequest},
		"broken off":                  {post(flEvents, "["+end[:len(end)-4]), http.StatusBadRequest},
		"packed":                      {packed, http.StatusUnsupportedMediaType},
		"too long":                    {post(flEvents, `[{"x": "`+strings.Repeat("x", maxEvents)+`"}]`), http.StatusRequestEntityTooLarge},
		"a question, not events":      {post("/v1/flussonic/fl1/publish/events", end), http.StatusForbidden},
		"nginx has no events":         {post("/v1/nginx/web1/events", end), http.StatusForbidden},
		"nothing":                     {post(flEvents, ""), http.StatusOK},
		"what is of no session":       {post(flEvents, `{"event": "stream_started"}`), http.StatusOK},
		"a play_opened of a stranger": {post(flEvents, flEvent("play_opened", "0d3c1f5e-0000-4000-8000-00000000cafe", 0, 0, "")), http.StatusOK},
	} {
		if got := b.deliver(c.r); got != c.want {
			t.Errorf("%s: status %d, want %d", what, got, c.want)
		}
		if b.table.count.Load() != 1 {
			t.Fatalf("%s: the session was ended", what)
		}
	}
	(&sweeper{s: b.Service}).round(t.Context(), b.now(), false)
	if signs := b.workers.Signs(); len(signs) != 0 {
		t.Errorf("workers were told %v", signs)
	}
}

// TestEventsWaitAtTheNode: a node that is told to come again loses nothing, and an edge that has no
// room for more tells it.
func TestEventsWaitAtTheNode(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := &sweeper{s: b.Service}
	b.workers.Seats = func(*usherv1.SeatsRequest) (*usherv1.SeatsReply, error) { return nil, edgetest.ErrAway }
	for i := range maxCloses/2 + 1 {
		b.heard(t.Context(), b.says("fl1", fmt.Sprint("s", i), 0, ended))
	}
	for range 2 { // they wait in the one place, then in the other
		if got := b.deliver(post(flEvents, flEvent("play_closed", flSession, 0, 0, ""))); got != http.StatusServiceUnavailable {
			t.Fatalf("status %d, want 503: it is sent again", got)
		}
		w.round(t.Context(), b.now(), false)
	}
	b.workers.Seats = nil
	w.round(t.Context(), b.now(), false)
	if got := b.deliver(post(flEvents, flEvent("play_closed", flSession, 0, 0, ""))); got != http.StatusOK {
		t.Errorf("status %d after the workers came back", got)
	}
	if n := len(b.workers.Signs()); n != maxCloses/2+1 {
		t.Errorf("%d ends were told, want all", n)
	}
}

// TestEventsTellNoToken: what a viewer brought stands in no line and in no span.
func TestEventsTellNoToken(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	b, spans := setup(t), tracetest.NewSpanRecorder()
	b.tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
	b.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, body := range []string{
		flEvent("play_closed", flSession, 0, 0, `, "token": "SECRET1", "query_string": "token=SECRET1", "reason": "SECRET1 was banned"`), `["SECRET1"`, `SECRET1`,
	} {
		r := post(flEvents, body)
		r.Header.Set("Traceparent", sampled)
		b.deliver(r)
		b.deliver(post(flEvents, body)) // of no trace: no span
	}
	if strings.Contains(log.String(), "SECRET1") || log.Len() == 0 {
		t.Errorf("log: %s", log.String())
	}
	ended := spans.Ended()
	if len(ended) != 3 {
		t.Fatalf("%d spans, want one for each delivery in a sampled trace", len(ended))
	}
	for _, s := range ended {
		if s.Name() != telemetry.SpanEvents || strings.Contains(fmt.Sprint(s.Attributes()), "SECRET1") {
			t.Errorf("span %s %v", s.Name(), s.Attributes())
		}
	}
}
