package viewing_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"usher.internal/libs/pgstore"
)

// tokenPolicy has the vectors' own secrets, and a key set that an issuer publishes.
const tokenPolicy = `
version: 1
defaults: {on_unavailable: deny, lease: 300ms, idle: 60s}
nodes:
  links: {caller: nginx, from: [127.0.0.1], url: "/s/{stream...}", token: ["query:md5"], budget: 5s}
  old: {caller: nginx, from: [127.0.0.1], url: "/p/*/{stream}", token: ["path:2"], budget: 5s}
  bare: {caller: nginx, from: [127.0.0.1], url: "/s/{stream...}", budget: 5s}
  app: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream...}/*", token: ["header:Authorization", "query:token"], budget: 5s}
checks:
  link: {type: secure_link, secret: "file:@DIR@/link"}
  old: {type: secure_link, secret: "file:@DIR@/link", form: secure_link_secret}
  hs: {type: jwt, secret: "file:@DIR@/jwt", claims: {user: sub, stream: path}}
  ed: {type: jwt, jwks: {url: "@ISSUER@", refresh: 1h}, claims: {user: sub, streams: ch, sessions: max}, iss: "https://id.example", realm: app}
streams:
  - {match: "live/*", auth: {any: [hs, ed]}, limit: {sessions: 2, max: 5, mode: refuse}}
  - {match: "**", auth: {any: [link, old]}, limit: {sessions: 1, mode: refuse}}
`

// asks is the question of an nginx about a viewer at 127.0.0.1.
func asks(base, node, uri, agent, bearer string) *http.Request {
	r := get(base + "/v1/nginx/" + node)
	r.Header.Set("X-Original-URI", uri)
	r.Header.Set("X-Original-Method", http.MethodGet)
	r.Header.Set("X-Real-IP", "127.0.0.1")
	r.Header.Set("User-Agent", agent)
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	return r
}

// keySet is an issuer that publishes the key of RFC 8037 A.1 and can be away.
type keySet struct{ away atomic.Bool }

// ServeHTTP implements http.Handler.
func (k *keySet) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if k.away.Load() {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	_, _ = w.Write([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
}

// signEd makes a token of that issuer, apart from the code that judges it.
func signEd(t *testing.T, claims map[string]any) string {
	t.Helper()
	seed, err := base64.RawURLEncoding.DecodeString("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
	must(t, err)
	body, err := json.Marshal(claims)
	must(t, err)
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","kid":"k1"}`)) + "." + base64.RawURLEncoding.EncodeToString(body)
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(ed25519.NewKeyFromSeed(seed), []byte(text)))
}

func TestTokensOfEveryScheme(t *testing.T) {
	t.Parallel()
	dir, keys := t.TempDir(), new(keySet)
	must(t, os.WriteFile(filepath.Join(dir, "link"), []byte("secret"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "jwt"), []byte("secret-secret-secret-secret-32by"), 0o600))
	issuer := httptest.NewServer(keys)
	t.Cleanup(issuer.Close)
	policy := strings.NewReplacer("@DIR@", dir, "@ISSUER@", issuer.URL).Replace(tokenPolicy)
	c := setup(t, shape{edges: 1, workers: 2, policy: policy})
	edge := c.edges[0]

	// nginx's own vectors; the path is signed, the segments that follow are not.
	const link = "/s/link?md5=_e4Nc3iduzkWRm01TBBNYw&expires=2147483647"
	c.want("nginx's link", c.do(asks(edge, "links", link, "VLC", "")), http.StatusOK, "")
	c.want("with another end", c.do(asks(edge, "links", strings.Replace(link, "7&", "8&", 1)+"0", "A", "")), http.StatusForbidden, "bad_token")
	c.want("of another file", c.do(asks(edge, "links", strings.Replace(link, "link", "film", 1), "B", "")), http.StatusForbidden, "bad_token")
	c.want("no link", c.do(asks(edge, "links", "/s/link", "C", "")), http.StatusForbidden, "no_token")
	c.want("one link is one seat", c.do(asks(edge, "links", link, "D", "")), http.StatusForbidden, "limit")
	c.want("where the node names no token", c.do(asks(edge, "bare", link+"&token=at-will", "E", "")), http.StatusForbidden, "limit")
	c.want("the older form", c.do(asks(edge, "old", "/p/5e814704a28d9bc1914ff19fa0c4a00a/link", "VLC", "")), http.StatusOK, "")

	// Leases end meanwhile: the session is judged again, by the path that opened it.
	before := c.asked()
	c.eventually(patience, "the link's session is judged again", func() bool {
		c.want("a later request", c.do(asks(edge, "links", "/s/link", "VLC", "")), http.StatusOK, "")
		return c.asked() >= before+2
	})

	c.appTokens(edge, keys)
}

// appTokens are tokens of an app: under a secret, and under a published key.
func (c *cluster) appTokens(edge string, keys *keySet) {
	const hs = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImsxIn0.eyJzdWIiOiJ1c2VyNDIiLCJleHAiOjE5MDAwMDAwMDAsInBhdGgiOiJsaXZlL2NoMSJ9.rdWWlzvpWs0XcS-KpOjxyySASvIsxPnpYVAHOJWeG0M"
	t := c.t.(*testing.T)
	c.want("HS256", c.do(asks(edge, "app", "/hls/live/ch1/index.m3u8", "VLC", hs)), http.StatusOK, "")
	c.want("HS256 on another stream", c.do(asks(edge, "app", "/hls/live/ch2/index.m3u8", "VLC", hs)), http.StatusForbidden, "bad_token")
	c.want("HS256 in the address", c.do(asks(edge, "app", "/hls/live/ch1/index.m3u8?token="+hs, "TV", "")), http.StatusOK, "")
	rows := c.live(pgstore.SessionFilter{User: "user42"})
	if len(rows) != 2 || rows[0].Realm != "main" {
		t.Errorf("sessions of user42 = %+v, want two in realm main", rows)
	}
	claims := map[string]any{"iss": "https://id.example", "sub": "anna", "exp": c.began.Add(time.Hour).Unix(), "ch": []string{"live/*"}, "max": 1}
	anna := signEd(t, claims)
	c.want("EdDSA", c.do(asks(edge, "app", "/hls/live/ch7/index.m3u8", "VLC", anna)), http.StatusOK, "")
	keys.away.Store(true)
	c.want("EdDSA, past the token's own number", c.do(asks(edge, "app", "/hls/live/ch8/index.m3u8", "TV", anna)), http.StatusForbidden, "limit")
	claims["sub"], claims["exp"] = "bert", c.began.Add(-time.Hour).Unix()
	c.want("EdDSA, over", c.do(asks(edge, "app", "/hls/live/ch7/index.m3u8", "VLC", signEd(t, claims))), http.StatusForbidden, "expired")
	claims["exp"] = c.began.Add(time.Hour).Unix()
	// A new revision in the middle of the issuer's outage does not forget the keys.
	revision := c.apply(strings.Replace(c.policyInForce(), "idle: 60s", "idle: 61s", 1))
	c.eventually(patience, "the revision is in force", func() bool { return c.inForce(revision) })
	c.want("EdDSA while the issuer is away", c.do(asks(edge, "app", "/hls/live/ch7/index.m3u8", "VLC", signEd(t, claims))), http.StatusOK, "")
	if rows := c.live(pgstore.SessionFilter{User: "bert"}); len(rows) != 1 || rows[0].Realm != "app" {
		t.Errorf("sessions of bert = %+v, want one in realm app", rows)
	}
}

// policyInForce is the text of the newest revision.
func (c *cluster) policyInForce() string {
	row, err := c.store.CurrentPolicy(c.t.Context())
	must(c.t, err)
	return row.Source
}
