package securelink

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

// linkCase is one entry of testdata/cases.
type linkCase struct {
	Name, Secret string
	Options      yaml.Node
	Stream, Path string
	Host, Agent  string
	IP           *string
	Query        string
	Now          int64
	Running      bool
	Want         string // allow, not_mine or a reason
	Text         string // stands in the denial's text
	User, Bearer string
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
		var cases []linkCase
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

func runCase(t *testing.T, c linkCase) {
	t.Helper()
	o := NewOptions()
	if c.Secret == "" {
		c.Secret = "secret"
	}
	o.Secret = secretFile(t, c.Secret)
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
	if id.User != c.User || id.Bearer == "" || c.Bearer != "" && id.Bearer != c.Bearer {
		t.Errorf("user %q, bearer %q, want %q, %q", id.User, id.Bearer, c.User, c.Bearer)
	}
	want := time.Time{}
	if c.Expires != 0 {
		want = time.Unix(c.Expires, 0)
	}
	if !id.Expires.Equal(want) {
		t.Errorf("expires = %v, want %v", id.Expires, want)
	}
}

func question(c linkCase) *token.Question {
	q := &token.Question{
		Query: c.Query, Stream: "bbc", Path: c.Path, Running: c.Running, Host: c.Host, UserAgent: c.Agent,
		IP: netip.MustParseAddr("127.0.0.1"), Now: time.Unix(1700000100, 0),
	}
	if c.Stream != "" {
		q.Stream = c.Stream
	}
	if c.IP != nil {
		q.IP, _ = netip.ParseAddr(*c.IP)
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

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Options)
		says   string
	}{
		"secret is needed":                   {func(o *Options) { o.Secret = config.Secret{} }, "secret"},
		"form is one of two":                 {func(o *Options) { o.Form = "sha1" }, "form"},
		"the template needs the secret":      {func(o *Options) { o.Hash = "$secure_link_expires$uri mysecret" }, "{secret}"},
		"the template needs the end":         {func(o *Options) { o.Hash = "{path}{secret}" }, "{expires}"},
		"an end that nothing carries":        {func(o *Options) { o.Expires = "" }, "names no argument"},
		"unknown variable":                   {func(o *Options) { o.Hash = "$request_uri{expires}{secret}" }, "request_uri"},
		"open brace":                         {func(o *Options) { o.Hash = "{expires}{secret" }, "not closed"},
		"lone brace":                         {func(o *Options) { o.Hash = "{expires}{secret}}" }, "alone"},
		"lone dollar":                        {func(o *Options) { o.Hash = "{expires}{secret}$" }, "alone"},
		"empty template":                     {func(o *Options) { o.Hash = "" }, "characters"},
		"user that the hash leaves out":      {func(o *Options) { o.User = "uid" }, "arg_uid"},
		"argument with a sign":               {func(o *Options) { o.MD5 = "a=b" }, "argument"},
		"layout without a rest":              {func(o *Options) { o.Path = "/{md5}/{expires}" }, "signed rest"},
		"layout without a hash":              {func(o *Options) { o.Path = "/x/{expires}{path}" }, "{md5}"},
		"layout without the end":             {func(o *Options) { o.Path = "/{md5}{path}" }, "{expires}"},
		"layout with a half element":         {func(o *Options) { o.Path = "/x{md5}/{md5}/{expires}{path}" }, "plain text"},
		"layout and the whole path":          {func(o *Options) { o.Path, o.Hash = "/{md5}/{expires}{path}", "$uri{expires}{secret}" }, "{uri}"},
		"empty cut":                          {func(o *Options) { o.Cut = []string{""} }, "cut"},
		"negative skew":                      {func(o *Options) { o.ClockSkew = -1 }, "negative"},
		"the old form takes no template":     {func(o *Options) { o.Form, o.Hash = FormSecret, "{secret}{expires}" }, "layout"},
		"the secret's file is not there":     {func(o *Options) { o.Secret, _ = config.ParseSecret("file:/nonexistent/x") }, "no such file"},
		"argument name in another script":    {func(o *Options) { o.Expires = "конец" }, "argument"},
		"template longer than anybody needs": {func(o *Options) { o.Hash = "{secret}{expires}" + strings.Repeat("x", 600) }, "characters"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := NewOptions()
			o.Secret = secretFile(t, "x")
			c.change(o)
			if _, err := New(o); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("New = %v, want a word about %q", err, c.says)
			}
		})
	}
}

func TestDenialNeverRepeatsTheLink(t *testing.T) {
	t.Parallel()
	o := NewOptions()
	o.Secret = secretFile(t, "SECRETKEY")
	v, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{"md5=_e4Nc3iduzkWRm01TBBNYw&expires=2147483647", "md5=abcabcabc&expires=2147483647", "md5=_e4Nc3iduzkWRm01TBBNYw&expires=77777"} {
		_, err := v.Verify(t.Context(), question(linkCase{Path: "/hidden/path", Query: query}))
		for _, part := range []string{"_e4N", "abcabc", "2147483647", "77777", "hidden", "SECRETKEY"} {
			if err == nil || strings.Contains(err.Error(), part) {
				t.Errorf("Verify = %v, which holds %q", err, part)
			}
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	o := NewOptions()
	o.Secret = secretFile(b, "secret")
	v, err := New(o)
	if err != nil {
		b.Fatal(err)
	}
	q := question(linkCase{Path: "/s/link", Query: "md5=_e4Nc3iduzkWRm01TBBNYw&expires=2147483647"})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(context.Background(), q); err != nil {
			b.Fatal(err)
		}
	}
}
