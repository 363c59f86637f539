package jwt

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"usher.internal/libs/token"
)

// issuer answers for keys, can be told to fail, and signs.
type issuer struct {
	mu     sync.Mutex // guards all below
	ids    []string
	status int
	body   string // in place of the keys
	err    error
	hangs  bool
	asked  int
}

func privateOf(id string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte((id + strings.Repeat("x", 32))[:32]))
}

func (i *issuer) set(change func(*issuer)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(i)
}

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

// RoundTrip implements http.RoundTripper.
func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	i.asked++
	hangs, err, status, body := i.hangs, i.err, i.status, i.body
	if body == "" {
		var set jose.JSONWebKeySet
		for _, id := range i.ids {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: privateOf(id).Public(), KeyID: id})
		}
		raw, _ := json.Marshal(set)
		body = string(raw)
	}
	i.mu.Unlock()
	if hangs {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if err != nil {
		return nil, err
	}
	if status == 0 {
		status = http.StatusOK
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Location": {"https://elsewhere.example/"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// signed is a good token under the issuer's key of that id.
func signed(t *testing.T, id string, now time.Time) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: privateOf(id)}, (&jose.SignerOptions{}).WithHeader("kid", id))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := json.Marshal(map[string]any{"sub": "u", "exp": now.Add(1000 * time.Hour).Unix()})
	jws, err := s.Sign(raw)
	if err != nil {
		t.Fatal(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func remoteOptions() *Options {
	o := NewOptions()
	o.JWKS.URL = "https://issuer.example/keys?key=hidden"
	return o
}

func verify(t *testing.T, v *Verifier, tok string) string {
	t.Helper()
	_, err := v.Verify(t.Context(), &token.Question{Token: tok, Stream: "bbc", Now: time.Now()})
	got, _ := outcome(t, err)
	return got
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

func TestKeysAreFetchedAndKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{ids: []string{"k1"}}
		var log bytes.Buffer
		var fetched []time.Time
		v, err := New(remoteOptions(), Deps{
			Check: "app", HTTP: i, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Fetched: func(_ string, at time.Time) { fetched = append(fetched, at) },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		began := time.Now()
		want(t, "a question that comes before the keys waits for them", verify(t, v, signed(t, "k1", began)), "allow")
		want(t, "a key that nobody published", verify(t, v, signed(t, "k9", began)), "bad_token")
		if i.count() != 1 {
			t.Errorf("the issuer was asked %d times, want once", i.count())
		}

		// The keys change; the outage that follows does not take them away.
		i.set(func(i *issuer) { i.ids = []string{"k1", "k2"} })
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		want(t, "a new key after the refresh", verify(t, v, signed(t, "k2", began)), "allow")
		i.set(func(i *issuer) { i.status = http.StatusBadGateway })
		time.Sleep(3 * 24 * time.Hour)
		synctest.Wait()
		i.set(func(i *issuer) { i.status, i.body = 0, "<html>log in to the hotel's network</html>" })
		time.Sleep(time.Hour)
		synctest.Wait()
		tok := signed(t, "k2", time.Now())
		want(t, "after three days of outage", verify(t, v, tok), "allow")
		if n := strings.Count(log.String(), "cannot be read"); n != 1 {
			t.Errorf("the log tells %d times that the keys cannot be read, want once:\n%s", n, log.String())
		}
		i.set(func(i *issuer) { i.body, i.ids = "", []string{"k3"} })
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		want(t, "the issuer is back", verify(t, v, signed(t, "k3", time.Now())), "allow")
		want(t, "a key that was withdrawn", verify(t, v, tok), "bad_token")
		if !strings.Contains(log.String(), "can be read again") || strings.Contains(log.String(), "hidden") {
			t.Errorf("log:\n%s", log.String())
		}
		if len(fetched) < 3 || !fetched[0].Equal(began) || time.Since(fetched[len(fetched)-1]) > 2*time.Minute {
			t.Errorf("Fetched was told %v", fetched)
		}
	})
}

func TestAnUnknownKeyIsLookedForOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{ids: []string{"k1"}}
		v, err := New(remoteOptions(), Deps{HTTP: i})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		want(t, "k1", verify(t, v, signed(t, "k1", time.Now())), "allow")
		time.Sleep(cooldown)
		i.set(func(i *issuer) { i.ids = []string{"k1", "k2"} })
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { want(t, "k2 before its time", verify(t, v, signed(t, "k2", time.Now())), "allow") })
		}
		wg.Wait()
		for range 50 {
			want(t, "an invented key", verify(t, v, signed(t, "k9", time.Now())), "bad_token")
		}
		if i.count() != 2 {
			t.Errorf("the issuer was asked %d times, want twice", i.count())
		}
		time.Sleep(cooldown)
		i.set(func(i *issuer) { i.hangs = true })
		began := time.Now()
		want(t, "an invented key while the issuer hangs", verify(t, v, signed(t, "k9", time.Now())), "bad_token")
		if took := time.Since(began); took > patience {
			t.Errorf("a question waited %v for keys, want at most %v", took, patience)
		}
		want(t, "a known key meanwhile", verify(t, v, signed(t, "k1", time.Now())), "allow")
		if took := time.Since(began); took > patience {
			t.Errorf("a known key waited too")
		}
	})
}

func TestWithoutKeysNobodyCanTell(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{ids: []string{"k1"}, err: errors.New("no route")}
		o := remoteOptions()
		v, err := New(o, Deps{HTTP: i})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		want(t, "no keys yet", verify(t, v, signed(t, "k1", time.Now())), "unavailable")
		want(t, "another form", verify(t, v, "abc"), "not_mine")
		began := time.Now()
		want(t, "no keys still", verify(t, v, signed(t, "k1", time.Now())), "unavailable")
		if took := time.Since(began); took != 0 {
			t.Errorf("a question waited %v although nothing was under way", took)
		}
		i.set(func(i *issuer) { i.err = nil })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		want(t, "keys after the next try", verify(t, v, signed(t, "k1", time.Now())), "allow")
	})
}

func TestKeysThatAreTooOldAreNotTrusted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{ids: []string{"k1"}}
		o := remoteOptions()
		o.JWKS.Keep = 24 * 60 * 60 * 1e9
		v, err := New(o, Deps{HTTP: i})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		want(t, "fresh", verify(t, v, signed(t, "k1", time.Now())), "allow")
		i.set(func(i *issuer) { i.status = http.StatusInternalServerError })
		time.Sleep(23 * time.Hour)
		want(t, "within keep", verify(t, v, signed(t, "k1", time.Now())), "allow")
		time.Sleep(2 * time.Hour)
		want(t, "past keep", verify(t, v, signed(t, "k1", time.Now())), "unavailable")
	})
}

// A new revision of the policy opens its checks anew, maybe in the middle of an outage.
func TestANewRevisionRemembersTheKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i, memory := &issuer{ids: []string{"k1"}}, new(Memory)
		first, err := New(remoteOptions(), Deps{HTTP: i, Memory: memory})
		if err != nil {
			t.Fatal(err)
		}
		want(t, "first revision", verify(t, first, signed(t, "k1", time.Now())), "allow")
		i.set(func(i *issuer) { i.err = errors.New("no route") })
		second, err := New(remoteOptions(), Deps{HTTP: i, Memory: memory})
		if err != nil {
			t.Fatal(err)
		}
		first.Close()
		want(t, "second revision", verify(t, second, signed(t, "k1", time.Now())), "allow")
		second.Close()
	})
}

// What a key set must not be, over a real connection: a redirect, a secret, a flood.
func TestAnswersThatAreNoKeySet(t *testing.T) {
	t.Parallel()
	good := `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`
	for name, h := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/keys" {
				http.Redirect(w, r, "/other", http.StatusFound)
				return
			}
			_, _ = io.WriteString(w, good)
		},
		"secret": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"keys":[{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T"}]}`)
		},
		"flood": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, good+strings.Repeat(" ", maxKeyText))
		},
		"no keys":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":[]}`) },
		"PEM":       func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "-----BEGIN PUBLIC KEY-----") },
		"no answer": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(h)
			defer s.Close()
			o := NewOptions()
			o.JWKS.URL = s.URL + "/keys"
			text, err := fetch(t.Context(), newClient(o, nil), o.JWKS.URL)
			if err == nil {
				_, err = parseKeys(text, nil, true)
			}
			if err == nil {
				t.Error("it was taken for a key set")
			}
		})
	}
}

func TestAKeyFileIsReadAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.json")
	write := func(id string) {
		raw, _ := json.Marshal(jose.JSONWebKey{Key: privateOf(id).Public(), KeyID: id})
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		write("k1")
		o := NewOptions()
		o.KeyFile = path
		v, err := New(o, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		want(t, "k1", verify(t, v, signed(t, "k1", time.Now())), "allow")
		write("k2")
		time.Sleep(fileEvery)
		synctest.Wait()
		want(t, "k2", verify(t, v, signed(t, "k2", time.Now())), "allow")
		want(t, "k1 is gone", verify(t, v, signed(t, "k1", time.Now())), "bad_token")
		if err := os.WriteFile(path, []byte("half a fi"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		want(t, "k2 stays while the file is broken", verify(t, v, signed(t, "k2", time.Now())), "allow")
	})
}

func TestEarlyEndsWithTheQuestion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v, err := New(remoteOptions(), Deps{HTTP: &issuer{hangs: true}})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		ctx, cancel := context.WithTimeout(t.Context(), patience/10)
		defer cancel()
		began := time.Now()
		v.source.early(ctx)
		if time.Since(began) != patience/10 {
			t.Errorf("early took %v", time.Since(began))
		}
	})
}
