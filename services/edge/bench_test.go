package edge

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
)

// blank is a response writer that keeps nothing, so that only the edge is measured.
type blank struct{ h http.Header }

func (b *blank) Header() http.Header         { return b.h }
func (b *blank) Write(p []byte) (int, error) { return len(p), nil }
func (b *blank) WriteHeader(int)             {}

// BenchmarkMemory is what the edge itself costs for an answer from memory.
func BenchmarkMemory(b *testing.B) {
	questions := map[string]*http.Request{
		"astra":   astraRequest("token=123"),
		"nginx":   nginxRequest("web1", "/hls/bbc/720p/1.ts?token=t1", "203.0.113.7", "Mozilla/5.0 (X11; Linux x86_64)"),
		"segment": nginxRequest("web1", "/hls/bbc/720p/1.ts", "203.0.113.7", "Mozilla/5.0 (X11; Linux x86_64)"),
	}
	for name, r := range questions {
		b.Run(name, func(b *testing.B) {
			e := setup(b)
			e.ask(astraRequest("token=123"))
			e.ask(nginxRequest("web1", "/hls/bbc/i.m3u8?token=t1", "203.0.113.7", "Mozilla/5.0 (X11; Linux x86_64)"))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				w := &blank{h: http.Header{}}
				for pb.Next() {
					e.ServeHTTP(w, r)
				}
			})
			if got := len(e.workers.Asked()); got != 2 {
				b.Fatalf("workers were asked %d times, want 2", got)
			}
		})
	}
}

// BenchmarkHTTP compares whole answers over loopback: the yardstick is a handler that
// does nothing but write the same headers.
func BenchmarkHTTP(b *testing.B) {
	e := setup(b)
	e.setPolicy(b, projection())
	handlers := map[string]http.Handler{
		"noop": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }),
		"edge": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.RemoteAddr = "10.1.0.9:4000" // the node's own address
			e.ServeHTTP(w, r)
		}),
	}
	for _, name := range []string{"noop", "edge"} {
		b.Run(name, func(b *testing.B) {
			srv := httptest.NewServer(handlers[name])
			defer srv.Close()
			client := srv.Client()
			client.Transport.(*http.Transport).MaxIdleConnsPerHost = 128
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r, _ := http.NewRequest(http.MethodGet, srv.URL+"/v1/astra/n1/check?token=123", nil)
					r.Header = astraRequest("").Header
					res, err := client.Do(r)
					if err != nil {
						b.Error(err)
						return
					}
					_ = res.Body.Close()
				}
			})
		})
	}
}

// TestSessionsFitIntoMemory holds the budget of 200,000 live sessions in 128 MiB, on a
// quarter of both, with texts as long as real players make them.
func TestSessionsFitIntoMemory(t *testing.T) { //nolint:paralleltest // others would allocate meanwhile
	const sessions = 50_000
	e := setup(t)
	r := segment("")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range sessions {
		n := e.view.Load().nodes["web1"]
		q := &question{node: n, view: e.view.Load(), rule: noRule}
		q.Stream, q.IP = fmt.Sprintf("hls/channel-%d", i%500), peerOf(fmt.Sprintf("203.%d.%d.%d:1", i>>16&255, i>>8&255, i&255))
		q.UserAgent = "Mozilla/5.0 (Linux; Android 11; SmartTV) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/118.0 Safari/537.36"
		q.Token = fmt.Sprintf("b650fb4aa311442facacecbcc4a2bec2b3e4%04x-5a17c0de-1700003600-%010d", i&0xffff, i)
		q.Path, q.Query = "/"+q.Stream+"/720p/segment-000001.ts", "token="+q.Token
		q.prefix = prefixOf(q.IP)
		q.Key = key(e.keyer, q)
		e.keep(q, nil, &grant{user: fmt.Sprint(i), name: fmt.Sprint(i), realm: "main"})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := after.HeapAlloc - before.HeapAlloc
	t.Logf("%d bytes a session", used/sessions)
	if e.table.count.Load() != sessions || used > 32<<20 {
		t.Errorf("%d sessions take %d MiB, want %d in at most 32", e.table.count.Load(), used>>20, sessions)
	}
	runtime.KeepAlive(r)
}
