package portal_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace/noop"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
	"usher.internal/libs/middleware"
	"usher.internal/libs/middleware/flussonic"
	mwhttp "usher.internal/libs/middleware/http"
	"usher.internal/libs/middleware/iptvportal"
	"usher.internal/libs/middleware/ministra"
	"usher.internal/libs/middleware/smarty"
	"usher.internal/libs/middleware/upstream"
	"usher.internal/libs/testkit/portal"
)

// ready is a middleware as a worker has it.
func ready[D upstream.Dialect](t *testing.T, o *upstream.Options, d D, err error) *middleware.Guard {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	m := upstream.New("test", d, o, upstream.Deps{Tracer: noop.NewTracerProvider().Tracer(""), Now: time.Now})
	g := middleware.NewGuard("test", m, o.Limits(), slog.New(slog.DiscardHandler))
	t.Cleanup(func() { g.Close(); m.Close() })
	return g
}

func aMinistra(t *testing.T, url string, change func(*ministra.Options)) *middleware.Guard {
	o := ministra.NewOptions()
	o.URL, o.Timeout = url, config.Duration(5*time.Second)
	if change != nil {
		change(o)
	}
	d, err := ministra.New(o)
	return ready(t, o.Common(), d, err)
}

func aSmarty(t *testing.T, url string, change func(*smarty.Options)) *middleware.Guard {
	o := smarty.NewOptions()
	o.URL, o.Timeout = url, config.Duration(5*time.Second)
	if change != nil {
		change(o)
	}
	d, err := smarty.New(o)
	return ready(t, o.Common(), d, err)
}

func anIPTVPortal(t *testing.T, url, variant string) *middleware.Guard {
	o := iptvportal.NewOptions()
	o.URL, o.Timeout, o.Variant = url, config.Duration(5*time.Second), variant
	d, err := iptvportal.New(o)
	return ready(t, o.Common(), d, err)
}

func aFlussonic(t *testing.T, url, method string) *middleware.Guard {
	o := flussonic.NewOptions()
	o.URL, o.Timeout, o.Method = url, config.Duration(5*time.Second), method
	d, err := flussonic.New(o)
	return ready(t, o.Common(), d, err)
}

func anHTTP(t *testing.T, url string) *middleware.Guard {
	o := mwhttp.NewOptions()
	o.URL, o.Timeout = url, config.Duration(5*time.Second)
	d, err := mwhttp.New(o)
	return ready(t, o.Common(), d, err)
}

func viewer(query, token string) *access.Request {
	return &access.Request{
		Query: query, Token: token, Stream: "news", Channel: "a001", Path: "/play/a001/index.m3u8", UserAgent: "VLC",
		IP: netip.MustParseAddr("10.0.0.5"), Key: access.Key{1},
	}
}

// want asks and says what is wrong with the answer.
func want(t *testing.T, what string, g *middleware.Guard, req *access.Request, allowed bool, text string) middleware.Answer {
	t.Helper()
	a, err := g.Ask(t.Context(), req)
	if err != nil || a.Allowed != allowed || !strings.Contains(a.Text, text) {
		t.Errorf("%s: Ask = %+v, %v, want allowed: %v with %q", what, a, err, allowed, text)
	}
	return a
}

func TestMinistra(t *testing.T) {
	t.Parallel()
	p := portal.NewMinistra(t)
	g := aMinistra(t, p.URL+"/stalker_portal/", func(o *ministra.Options) { o.NumericUser = true })
	token := p.Link("1234")
	for range 2 { // it is not used up
		a := want(t, "a new link", g, viewer("token="+token, token), true, "")
		if a.User != "1234" || a.Sessions != 10 || a.Duration != 10*time.Hour {
			t.Errorf("a new link: %+v", a)
		}
	}
	asked := len(p.Asked())
	want(t, "two tokens", g, viewer("token=x&token="+token, "x"), false, "repeated")
	if len(p.Asked()) != asked {
		t.Error("the portal was asked about two tokens")
	}
	want(t, "an unknown link", g, viewer("token=x", "x"), false, "403")
	proxy := p.Link("/get/10.1.1.1/ch")
	want(t, "a link of the proxy kind", g, viewer("token="+proxy, proxy), false, "another kind")
	p.Advance(6 * time.Second)
	want(t, "an old link", g, viewer("token="+token, token), false, "403")
	pro := aMinistra(t, p.URL, nil)
	token = p.Link("17")
	want(t, "Ministra PRO", pro, viewer("token="+token, token), true, "")
}

func TestMinistraInJSON(t *testing.T) {
	p := portal.NewMinistra(t)
	p.Login, p.Password = "api", "secret"
	t.Setenv("PORTAL_PASSWORD", "secret")
	password, err := config.ParseSecret("env:PORTAL_PASSWORD")
	if err != nil {
		t.Fatal(err)
	}
	g := aMinistra(t, p.URL+"/stalker_portal", func(o *ministra.Options) {
		o.Variant, o.User, o.Password = ministra.VariantJSON, "api", password
	})
	token := p.Link("1234")
	if a := want(t, "a new link", g, viewer("token="+token, token), true, ""); a.User != "1234" {
		t.Errorf("a new link: %+v", a)
	}
	want(t, "an unknown link, of which status says OK", g, viewer("token=x", "x"), false, "does not know")
	stranger := aMinistra(t, p.URL+"/stalker_portal", func(o *ministra.Options) { o.Variant = ministra.VariantJSON })
	want(t, "without sign-in", stranger, viewer("token="+token, token), false, "401")
}

// The double reads what a browser sends as the real endpoint was measured to (spec astra §2.2).
func TestMinistraIsPHP(t *testing.T) {
	t.Parallel()
	p := portal.NewMinistra(t)
	token := p.Link("1234")
	const at = "/server/api/chk_flussonic_tmp_link.php"
	for query, status := range map[string]int{
		"token=" + token:             http.StatusOK,
		"token=x&token=" + token:     http.StatusOK,
		"token=" + token + "&token=": http.StatusForbidden,
		"TOKEN=" + token:             http.StatusForbidden,
		"%74oken=" + token:           http.StatusOK,
		"token[]=" + token:           http.StatusInternalServerError,
		"token=0":                    http.StatusForbidden,
		"":                           http.StatusForbidden,
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			if got := send(t, method, p.URL+at+"?"+query, ""); got != status {
				t.Errorf("%s ?%s = %d, want %d", method, query, got, status)
			}
		}
	}
	if got := send(t, http.MethodPost, p.URL+at, "token="+token); got != http.StatusForbidden {
		t.Errorf("POST = %d, want 403", got)
	}
}

// send asks without following redirects.
func send(t *testing.T, method, url, body string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

func TestSmarty(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*portal.Smarty){
		"refuses with 403": func(*portal.Smarty) {},
		"refuses with 200": func(s *portal.Smarty) { s.Refuses = http.StatusOK },
		"answers in XML":   func(s *portal.Smarty) { s.Refuses, s.XML = http.StatusOK, true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := portal.NewSmarty(t)
			set(p)
			p.Token("T1", "a001", "10.0.0.5")
			p.Token("T2", "a002", "10.0.0.5")
			p.Token("T3", "a001", "10.0.0.6")
			strict := aSmarty(t, p.URL, func(o *smarty.Options) { o.SendName, o.SendIP = true, true })
			want(t, "his own token", strict, viewer("token=T1", "T1"), true, "")
			want(t, "a token for another channel", strict, viewer("token=T2&name=a002", "T2"), false, "other content")
			want(t, "a token for another address", strict, viewer("token=T3&ip=10.0.0.6", "T3"), false, "another address")
			want(t, "no token of Smarty's", strict, viewer("token=x", "x"), false, "expired")
			loose := aSmarty(t, p.URL+"/streaming/api/token/check", nil)
			want(t, "as Astra asks", loose, viewer("token=T2", "T2"), true, "")
			p.Advance(2 * time.Hour)
			want(t, "an old token", strict, viewer("token=T1", "T1"), false, "expired")
		})
	}
	p := portal.NewSmarty(t)
	if got := send(t, http.MethodGet, p.URL+"/tvmiddleware/api/streamservice/token/check?token=T", ""); got != http.StatusMovedPermanently {
		t.Errorf("without its last slash: %d, want 301", got)
	}
}

func TestIPTVPortal(t *testing.T) {
	t.Parallel()
	for _, variant := range []string{iptvportal.VariantPlain, iptvportal.VariantFlussonic} {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			p := portal.NewIPTVPortal(t)
			p.Let("77", map[string]string{"X-UserId": "u77"})
			g := anIPTVPortal(t, p.URL+"/", variant)
			if a := want(t, "a subscriber", g, viewer("sid=77", ""), true, ""); a.User != "u77" || a.Recheck != time.Hour || a.Grant != 3*time.Hour {
				t.Errorf("a subscriber: %+v", a)
			}
			p.Drop("77")
			if a := want(t, "asked again", g, viewer("sid=77", ""), false, "403"); a.Grace != time.Hour {
				t.Errorf("asked again: %+v", a)
			}
		})
	}
}

func TestFlussonicBackend(t *testing.T) {
	t.Parallel()
	for _, method := range []string{flussonic.MethodGet, flussonic.MethodPost} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			b := portal.NewFlussonicBackend(t)
			b.Set("T1", portal.Subscriber{User: "u42", MaxSessions: 2, AuthDuration: 300})
			b.Set("T2", portal.Subscriber{User: "u43", Location: "http://tv.example.com/pay.m3u8"})
			g := aFlussonic(t, b.URL+"/auth", method)
			first := viewer("token=T1&name=evil&ip=1.1.1.1", "T1")
			if a := want(t, "a new session", g, first, true, ""); a.User != "u42" || a.Sessions != 2 || a.Duration != 5*time.Minute {
				t.Errorf("a new session: %+v", a)
			}
			update := viewer("token=T1", "T1")
			update.Session, update.Received = uuid.Must(uuid.NewV7()), time.Now()
			want(t, "an update", g, update, true, "")
			b.Set("T1", portal.Subscriber{User: "u42", Suspended: true})
			want(t, "an update of one who was suspended", g, update, false, "403")
			want(t, "a stranger", g, viewer("token=x", "x"), false, "403")
			want(t, "no token", g, viewer("", ""), false, "403")
			if a := want(t, "one who is sent away", g, viewer("token=T2", "T2"), false, "302"); a.Location != "http://tv.example.com/pay.m3u8" {
				t.Errorf("one who is sent away: %+v", a)
			}
			b.Break(portal.Fail)
			if _, err := g.Ask(t.Context(), update); !errors.Is(err, middleware.ErrUnavailable) {
				t.Errorf("a 500 is %v, want unavailable", err)
			}
		})
	}
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	b := portal.NewHTTP(t)
	b.Set("123", portal.Answer{Status: 200, Headers: map[string]string{"X-Session-Name": "alice"}})
	b.Set("124", portal.Answer{Status: 403, Headers: map[string]string{"X-Location": "http://pay/"}})
	g := anHTTP(t, b.URL+"/check?key=K")
	if a := want(t, "a subscriber", g, viewer("token=123", "123"), true, ""); a.User != "alice" {
		t.Errorf("a subscriber: %+v", a)
	}
	if a := want(t, "one who has not paid", g, viewer("token=124", "124"), false, "403"); a.Location != "http://pay/" {
		t.Errorf("one who has not paid: %+v", a)
	}
	if r := b.Asked()[0]; r.URL.RawQuery != "key=K&token=123" || r.Header.Get("X-Channel-Id") != "a001" {
		t.Errorf("asked %s with %v", r.URL, r.Header)
	}
}

// TestFaults holds every kind against every fault of its own product: none is a yes to a
// stranger, and what hangs costs its budget.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) (func(portal.Fault), *middleware.Guard){
		"ministra": func(t *testing.T) (func(portal.Fault), *middleware.Guard) {
			p := portal.NewMinistra(t)
			return p.Break, aMinistra(t, p.URL, func(o *ministra.Options) { o.ExpectHeader = "X-Max-Sessions" })
		},
		"ministra in JSON": func(t *testing.T) (func(portal.Fault), *middleware.Guard) {
			p := portal.NewMinistra(t)
			return p.Break, aMinistra(t, p.URL, func(o *ministra.Options) { o.Variant = ministra.VariantJSON })
		},
		"smarty": func(t *testing.T) (func(portal.Fault), *middleware.Guard) {
			p := portal.NewSmarty(t)
			return p.Break, aSmarty(t, p.URL, nil)
		},
	} {
		for _, fault := range portal.Faults {
			t.Run(name+" "+string(fault), func(t *testing.T) {
				t.Parallel()
				set, g := start(t)
				set(fault)
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				begin := time.Now()
				a, err := g.Ask(ctx, viewer("token=T", "T"))
				if a.Allowed {
					t.Errorf("Ask = %+v, %v, want no yes", a, err)
				}
				if took := time.Since(begin); took > 5*time.Second {
					t.Errorf("it cost %v of 500ms", took)
				}
				set(portal.None)
				if _, err := g.Ask(t.Context(), viewer("token=other", "other")); err != nil {
					t.Errorf("after it was mended: %v", err)
				}
			})
		}
	}
}
