package decidetest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"usher.internal/libs/testkit/portal"
)

// Backend is how one host of Upstream answers: by itself, or as a product whose double
// testkit/portal has.
type Backend struct {
	// Status 0 is a broken connection.
	Status  int
	Headers map[string]string
	Body    string
	// After is how long it takes; a question whose time is over sooner fails.
	After time.Duration

	// Kind is the product, "" for none of them. The rest is what it is told.
	Kind string
	// Fault breaks it.
	Fault portal.Fault
	// Links are Ministra's tokens and what they stand for; they live five seconds.
	Links map[string]string
	// Tokens are Smarty's; Refuses is the status of its refusals.
	Tokens  map[string]SmartyToken
	Refuses int
	// Viewers are IPTVportal's, by sid, with the headers of a yes.
	Viewers map[string]map[string]string
	// Subscribers are those of a Flussonic backend, by token.
	Subscribers map[string]portal.Subscriber
}

// SmartyToken is what a token of Smarty's was made for.
type SmartyToken struct{ Name, IP string }

// product is a server that can be told things.
type product interface{ set(b Backend) }

// start starts the server of one host.
func start(t testing.TB, b Backend) *host {
	t.Helper()
	h := &host{Backend: b}
	switch b.Kind {
	case "":
		p := &plain{}
		s := httptest.NewServer(p)
		t.Cleanup(s.Close)
		h.address, h.product = address(s.URL), p
	case "ministra":
		p := ministra{portal.NewMinistra(t)}
		h.address, h.product = address(p.URL), p
	case "smarty":
		p := smarty{portal.NewSmarty(t)}
		h.address, h.product = address(p.URL), p
	case "iptvportal":
		p := iptvportal{portal.NewIPTVPortal(t)}
		h.address, h.product = address(p.URL), p
	case "flussonic":
		p := flussonic{portal.NewFlussonicBackend(t)}
		h.address, h.product = address(p.URL), p
	default:
		t.Fatalf("no product is called %q", b.Kind)
	}
	return h
}

func address(url string) string { return strings.TrimPrefix(url, "http://") }

// plain is a server that answers everybody alike.
type plain struct{ backend atomic.Pointer[Backend] }

func (p *plain) set(b Backend) { p.backend.Store(&b) }

// ServeHTTP implements http.Handler.
func (p *plain) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b := p.backend.Load()
	if b.wait(r) != nil || b.Status == 0 {
		panic(http.ErrAbortHandler) // the connection breaks
	}
	for name, value := range b.Headers {
		w.Header().Set(name, value)
	}
	w.WriteHeader(b.Status)
	_, _ = w.Write([]byte(b.Body)) // whoever has gone needs no answer
}

type ministra struct{ *portal.Ministra }

func (p ministra) set(b Backend) {
	p.Break(b.Fault)
	for token, value := range b.Links {
		p.Keep(token, value)
	}
}

type smarty struct{ *portal.Smarty }

func (p smarty) set(b Backend) {
	p.Break(b.Fault)
	if b.Refuses != 0 {
		p.Refuse(b.Refuses)
	}
	for token, of := range b.Tokens {
		p.Token(token, of.Name, of.IP)
	}
}

type iptvportal struct{ *portal.IPTVPortal }

func (p iptvportal) set(b Backend) {
	p.Break(b.Fault)
	for sid, headers := range b.Viewers {
		p.Let(sid, headers)
		if headers == nil {
			p.Drop(sid)
		}
	}
}

type flussonic struct{ *portal.FlussonicBackend }

func (p flussonic) set(b Backend) {
	p.Break(b.Fault)
	for token, s := range b.Subscribers {
		p.Set(token, s)
	}
}
