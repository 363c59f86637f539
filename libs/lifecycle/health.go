package lifecycle

import (
	"encoding/json"
	"maps"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Health knows whether the process can do its work. The zero value is ready to use
// and says yes to everything. Its methods may be called from any goroutine.
type Health struct {
	mu    sync.Mutex // guards the maps, never held while a check runs
	alive map[string]func() error
	ready map[string]func() error
}

// Check adds a condition of readiness: while it returns an error, no new work should
// be sent here. It is called for each question and must answer at once, from memory.
// Its text is shown to whoever asks, so it must hold no secret. A name given twice
// replaces the first.
func (h *Health) Check(name string, check func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ready == nil {
		h.ready = make(map[string]func() error)
	}
	h.ready[name] = check
}

// Alive adds a condition of life: while it returns an error the process should be
// restarted. What comes back by itself (a database that is away) is no such condition.
func (h *Health) Alive(name string, check func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.alive == nil {
		h.alive = make(map[string]func() error)
	}
	h.alive[name] = check
}

// Ready runs all checks of readiness and returns the texts of those that fail, by name.
func (h *Health) Ready() map[string]string {
	h.mu.Lock()
	checks := maps.Clone(h.ready)
	h.mu.Unlock()
	return failing(checks)
}

func (h *Health) living() map[string]string {
	h.mu.Lock()
	checks := maps.Clone(h.alive)
	h.mu.Unlock()
	return failing(checks)
}

func failing(checks map[string]func() error) map[string]string {
	out := make(map[string]string)
	for name, check := range checks {
		if err := check(); err != nil {
			out[name] = err.Error()
		}
	}
	return out
}

// AdminMux answers /healthz, /readyz and /metrics. A failing check gives 503 and
// stands, with its text, under "failing". It belongs on a private address.
func AdminMux(h *Health, metrics prometheus.Gatherer) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { report(w, h.living()) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { report(w, h.Ready()) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return mux
}

func report(w http.ResponseWriter, failing map[string]string) {
	body := struct {
		OK      bool              `json:"ok"`
		Failing map[string]string `json:"failing,omitempty"`
	}{len(failing) == 0, failing}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !body.OK {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(body) // the asker has gone
}
