package jwt

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/go-jose/go-jose/v4"

	"usher.internal/libs/config"
	"usher.internal/libs/token"
)

const testSecret = "secret-secret-secret-secret-32by"

// tokenCase is one entry of testdata/cases.
type tokenCase struct {
	Name         string
	Key          string // a file of testdata/keys; "": testSecret
	Options      yaml.Node
	Stream       string
	Token        string
	Now          int64
	Running      bool
	Want         string // allow, not_mine or a reason
	Text         string // stands in the denial's text
	User, Device string
	Sessions     int
	Expires      int64
}

func TestCases(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/cases/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("finding cases: %v, %d files", err, len(files))
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var cases []tokenCase
		d := yaml.NewDecoder(strings.NewReader(string(raw)))
		d.KnownFields(true)
		if err := d.Decode(&cases); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, c := range cases {
			t.Run(c.Name, func(t *testing.T) {
				t.Parallel()
				runCase(t, c)
			})
		}
	}
}

func runCase(t *testing.T, c tokenCase) {
	t.Helper()
	o := NewOptions()
	if c.Key == "" {
		o.Secret = secretFile(t, testSecret)
	} else {
		o.KeyFile = keyFile(t, c.Key)
	}
	if !c.Options.IsZero() {
		if err := c.Options.Decode(o); err != nil {
			t.Fatal(err)
		}
	}
	v := open(t, o, Deps{})
	id, err := v.Verify(t.Context(), question(c))
	got, text := outcome(t, err)
	if got != c.Want || !strings.Contains(text, c.Text) {
		t.Fatalf("Verify = %s %q, want %s %q", got, text, c.Want, c.Text)
	}
	if c.Want != "allow" {
		return
	}
	if c.User != "" && id.User != c.User || id.Device != c.Device || id.Sessions != c.Sessions || id.Bearer == "" {
		t.Errorf("identity = %+v, want user %q device %q sessions %d", id, c.User, c.Device, c.Sessions)
	}
	want := time.Time{}
	if c.Expires != 0 {
		want = time.Unix(c.Expires, 0)
	}
	if !id.Expires.Equal(want) {
		t.Errorf("expires = %v, want %v", id.Expires, want)
	}
}

func question(c tokenCase) *token.Question {
	q := &token.Question{
		Token: c.Token, Stream: "bbc", Running: c.Running,
		IP: netip.MustParseAddr("203.0.113.7"), Now: time.Unix(1700000100, 0),
	}
	if c.Stream != "" {
		q.Stream = c.Stream
	}
	if c.Now != 0 {
		q.Now = time.Unix(c.Now, 0)
	}
	return q
}

func open(t testing.TB, o *Options, d Deps) *Verifier {
	t.Helper()
	v, err := New(o, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// outcome names what Verify returned.
func outcome(t *testing.T, err error) (string, string) {
	t.Helper()
	var d *token.Denial
	switch {
	case err == nil:
		return "allow", ""
	case errors.Is(err, token.ErrNotMine):
		return "not_mine", ""
	case errors.Is(err, token.ErrUnavailable):
		return "unavailable", ""
	case errors.As(err, &d):
		return string(d.Reason), d.Text
	}
	t.Fatalf("Verify returned %v, which is neither ErrNotMine, ErrUnavailable nor a Denial", err)
	return "", ""
}

func secretFile(t testing.TB, secret string) config.Secret {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := config.ParseSecret("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func keyFile(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", "keys", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// RFC 8037 A.4 signs a text that is no JSON, so that only its signature can be looked at.
func TestRFC8037(t *testing.T) {
	t.Parallel()
	o := NewOptions()
	o.KeyFile = keyFile(t, "rfc8037.json")
	v := open(t, o, Deps{})
	const head = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
	for text, want := range map[string]string{
		head + "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg": "allow",
		head + "igyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg": "bad_token",
	} {
		p, ok := parse(text)
		if !ok || !p.badBody {
			t.Fatalf("parse = %+v, %t, want a token without claims", p, ok)
		}
		if got, _ := outcome(t, v.verifySignature(t.Context(), &p, text)); got != want {
			t.Errorf("signature = %s, want %s", got, want)
		}
	}
}

// A token whose secret is the public key's own text must never be taken: the classic confusion
// of RS256 and HS256.
func TestAPublicKeyIsNoSecret(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----"} {
		o := NewOptions()
		o.Secret = secretFile(t, text)
		if _, err := New(o, Deps{}); err == nil || !strings.Contains(err.Error(), "key_file") {
			t.Errorf("New = %v, want a word about key_file", err)
		}
	}
	raw, err := os.ReadFile(keyFile(t, "a2.json"))
	if err != nil {
		t.Fatal(err)
	}
	o := NewOptions()
	o.Secret = secretFile(t, string(raw))
	forged, err := Sign(o, token.Ticket{Stream: "bbc", User: "mallory", Start: time.Unix(1700000000, 0), End: time.Unix(1700003600, 0)})
	if err != nil {
		t.Fatal(err)
	}
	honest := NewOptions()
	honest.KeyFile = keyFile(t, "a2.json")
	if got, _ := outcome(t, func() error {
		_, err := open(t, honest, Deps{}).Verify(t.Context(), question(tokenCase{Token: forged.Token}))
		return err
	}()); got != "bad_token" {
		t.Errorf("a token signed with the public key as secret: %s, want bad_token", got)
	}
}

func TestDenialNeverRepeatsTheToken(t *testing.T) {
	t.Parallel()
	o := NewOptions()
	o.Secret = secretFile(t, testSecret)
	o.Claims.IP, o.Claims.Streams = "hidden", "hidden"
	v := open(t, o, Deps{})
	signing := NewOptions()
	signing.Secret, signing.Claims.Device = o.Secret, "hidden"
	tok, err := Sign(signing, token.Ticket{User: "someuser", Device: "somevalue", Start: time.Unix(1700000000, 0), End: time.Unix(1700003600, 0)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.Verify(t.Context(), question(tokenCase{Token: tok.Token}))
	for _, part := range []string{"someuser", "somevalue", "eyJ", testSecret} {
		if err == nil || strings.Contains(err.Error(), part) {
			t.Errorf("Verify = %v, which holds %q", err, part)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Options)
		says   string
	}{
		"no key at all":                  {func(o *Options) { o.Secret = config.Secret{} }, "want one of"},
		"two kinds of keys":              {func(o *Options) { o.KeyFile = "/x" }, "want one of"},
		"relative path":                  {func(o *Options) { o.Secret, o.KeyFile = config.Secret{}, "x" }, "absolute"},
		"algorithm that nobody knows":    {func(o *Options) { o.Algorithms = []string{"none"} }, "none"},
		"algorithm that takes no secret": {func(o *Options) { o.Algorithms = []string{"RS256"} }, "used with"},
		"other_issuer is one of two":     {func(o *Options) { o.OtherIssuer = "maybe" }, "maybe"},
		"claim with an empty name":       {func(o *Options) { o.Claims.User = "a..b" }, "a..b"},
		"user without a claim":           {func(o *Options) { o.RequireUser, o.Claims.User = true, "" }, "claims.user"},
		"short secret":                   {func(o *Options) { o.Secret = secretFile(t, "short") }, "32"},
		"file that is not there":         {func(o *Options) { o.Secret, o.KeyFile = config.Secret{}, "/nonexistent/key" }, "no such file"},
		"secret that is not there":       {func(o *Options) { o.Secret, _ = config.ParseSecret("file:/nonexistent/x") }, "no such file"},
		"address with a password":        {remote("https://u:p@issuer.example/keys"), "password"},
		"address without TLS":            {remote("http://issuer.example/keys"), "plain_http"},
		"address of another kind":        {remote("ftp://issuer.example/keys"), "https://"},
		"refresh too often":              {func(o *Options) { remote("https://i.example/")(o); o.JWKS.Refresh = 1 }, "refresh"},
		"no timeout":                     {func(o *Options) { remote("https://i.example/")(o); o.JWKS.Timeout = 0 }, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := NewOptions()
			o.Secret = secretFile(t, testSecret)
			c.change(o)
			if _, err := New(o, Deps{}); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("New = %v, want a word about %q", err, c.says)
			}
		})
	}
}

func remote(address string) func(*Options) {
	return func(o *Options) { o.Secret, o.JWKS.URL = config.Secret{}, address }
}

func BenchmarkVerify(b *testing.B) {
	for name, c := range map[string]tokenCase{
		"HS256": {Token: "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImsxIn0.eyJzdWIiOiJ1c2VyNDIiLCJleHAiOjE5MDAwMDAwMDAsInBhdGgiOiJsaXZlL2NoMSJ9.rdWWlzvpWs0XcS-KpOjxyySASvIsxPnpYVAHOJWeG0M"},
		"ES256": {Key: "a3.json", Now: 1300819379, Token: "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"},
		"RS256": {Key: "a2.json", Now: 1300819379, Token: "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"},
	} {
		b.Run(name, func(b *testing.B) {
			o := NewOptions()
			if c.Key == "" {
				o.Secret = secretFile(b, testSecret)
			} else {
				o.KeyFile = keyFile(b, c.Key)
			}
			v := open(b, o, Deps{})
			q := question(c)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(context.Background(), q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestATokenHasOneText(t *testing.T) {
	t.Parallel()
	o := NewOptions()
	o.Secret = secretFile(t, testSecret)
	v := open(t, o, Deps{})
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(testSecret)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := s.Sign([]byte(`{"sub":"u","exp":1700000200}`))
	if err != nil {
		t.Fatal(err)
	}
	good, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	q := &token.Question{Token: good, Stream: "bbc", Now: time.Unix(1700000100, 0)}
	if _, err := v.Verify(t.Context(), q); err != nil {
		t.Fatalf("Verify = %v, want allow", err)
	}
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(digits, good[len(good)-1])
	for _, other := range []string{
		good[:len(good)-1] + string(digits[last|1]), good[:len(good)-1] + string(digits[last|2]), good + "\n", good[:len(good)-3] + "\r\n" + good[len(good)-3:], good + "=",
	} {
		q.Token = other
		if _, err := v.Verify(t.Context(), q); err == nil {
			t.Errorf("Verify let the token in under another text, %q: a ban on it would not", other[len(good)-5:])
		}
	}
}
