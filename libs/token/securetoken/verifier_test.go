package securetoken

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

	"usher.internal/libs/config"
	"usher.internal/libs/token"
)

// tokenCase is one entry of testdata/cases.
type tokenCase struct {
	Name    string
	Secret  string
	Options yaml.Node
	Stream  *string
	Path    string
	IP      *string
	Query   string
	Token   string
	Now     int64
	Running bool
	Want    string // allow, not_mine or a reason
	Text    string // stands in the denial's text
	User    *string
	Claim   *struct{ Name, Value string }
	Expires int64
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
	o.Secret = secretFile(t, or(c.Secret, "SECRETKEY"))
	if !c.Options.IsZero() {
		if err := c.Options.Decode(o); err != nil {
			t.Fatal(err)
		}
	}
	v, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	id, err := v.Verify(t.Context(), question(c))
	got, text := outcome(t, err)
	if got != c.Want || !strings.Contains(text, c.Text) {
		t.Fatalf("Verify = %s %q, want %s %q", got, text, c.Want, c.Text)
	}
	if c.Want != "allow" {
		return
	}
	if c.User != nil && id.User != *c.User {
		t.Errorf("user = %q, want %q", id.User, *c.User)
	}
	if c.Claim != nil && (id.Claim == nil || id.Claim.Name != c.Claim.Name || id.Claim.Value != c.Claim.Value) {
		t.Errorf("claim = %+v, want %+v", id.Claim, c.Claim)
	}
	if wants := o.SaltLength == 0; (id.Claim != nil) != wants {
		t.Errorf("claim = %+v, want one: %v", id.Claim, wants)
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
		Token: c.Token, Query: c.Query, Stream: "bbc", Path: c.Path, Running: c.Running,
		IP: netip.MustParseAddr("203.0.113.7"), Now: time.Unix(1700000100, 0),
	}
	if c.Stream != nil {
		q.Stream = *c.Stream
	}
	if c.IP != nil {
		q.IP = netip.Addr{}
		if *c.IP != "" {
			q.IP = netip.MustParseAddr(*c.IP)
		}
	}
	if c.Now != 0 {
		q.Now = time.Unix(c.Now, 0)
	}
	return q
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
	case errors.As(err, &d):
		return string(d.Reason), d.Text
	}
	t.Fatalf("Verify returned %v, which is neither ErrNotMine nor a Denial", err)
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

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func TestDenialNeverRepeatsTheToken(t *testing.T) {
	t.Parallel()
	o := NewOptions()
	o.Secret = secretFile(t, "SECRETKEY")
	v, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []tokenCase{
		{Token: "bf2c482aea54e449bdd0d9f300b6e13053927aa8-saltsaltsalt-1700010800-1700000000-someuser"},
		{Token: "bf2c482aea54e449bdd0d9f300b6e13053927aa8-saltsaltsalt-1700010800-1700000000", Query: "user_id=some user"},
	} {
		_, err := v.Verify(t.Context(), question(c))
		for _, part := range []string{"bf2c", "saltsalt", "someuser", "some user", "SECRETKEY", "1700010800"} {
			if err == nil || strings.Contains(err.Error(), part) {
				t.Errorf("Verify = %v, which holds %q", err, part)
			}
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Options){
		"secret is needed":                func(o *Options) { o.Secret = config.Secret{} },
		"bind is one of two":              func(o *Options) { o.Bind = "channel" },
		"salt_length is not negative":     func(o *Options) { o.SaltLength = -1 },
		"salt_length is not over the cap": func(o *Options) { o.SaltLength = 65 },
		"clock_skew is not negative":      func(o *Options) { o.ClockSkew = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := NewOptions()
			o.Secret = secretFile(t, "x")
			change(o)
			if err := o.Validate(); err == nil {
				t.Error("Validate accepted it")
			}
			if _, err := New(o); err == nil {
				t.Error("New accepted it")
			}
		})
	}
	t.Run("a secret that is not there fails at once", func(t *testing.T) {
		t.Parallel()
		o := NewOptions()
		o.Secret, _ = config.ParseSecret("file:/nonexistent/secret")
		if _, err := New(o); err == nil {
			t.Error("New accepted it")
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	o := NewOptions()
	o.Secret = secretFile(b, "SECRETKEY")
	v, err := New(o)
	if err != nil {
		b.Fatal(err)
	}
	q := question(tokenCase{
		Token: "bf2c482aea54e449bdd0d9f300b6e13053927aa8-a1b2c3d4e5f60718293a4b5c6d7e8f90-1700010800-1700000000",
		Query: "token=bf2c482aea54e449bdd0d9f300b6e13053927aa8-a1b2c3d4e5f60718293a4b5c6d7e8f90-1700010800-1700000000",
	})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(context.Background(), q); err != nil {
			b.Fatal(err)
		}
	}
}
