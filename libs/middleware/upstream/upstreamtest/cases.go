package upstreamtest

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.yaml.in/yaml/v3"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
	"usher.internal/libs/match"
	"usher.internal/libs/middleware"
)

// aCase is one entry of testdata/cases.
type aCase struct {
	Name    string
	Options yaml.Node
	Base    string // path and query of the upstream's address
	Request struct {
		Token, Query, Path, Host, UA, Referer, Session, Channel, Stream, IP, Protocol string
		Running                                                                       string // age of the session that the question re-decides
	}
	Sent struct {
		URI     *string // request line's target; absent: not looked at
		Post    bool
		Body    string
		Headers map[string]string // with their spelling
		Nothing bool
	}
	Answer struct {
		Status  int
		Headers map[string]string
		Body    string
	}
	Want struct {
		Allowed, Unavailable                 bool
		User, Name, Location, Text, Identity string
		Sessions                             int
		Duration, Grant, Recheck, Grace      config.Duration
		WholeSession                         bool   `yaml:"whole_session"`
		Archive                              string // as access.Reach is written
	}
}

// Cases runs testdata/cases of the kind's folder.
func (s *Suite[O, D]) Cases(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob("testdata/cases/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("finding cases: %v, %d files", err, len(files))
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var cases []aCase
		d := yaml.NewDecoder(strings.NewReader(string(raw)))
		d.KnownFields(true)
		if err := d.Decode(&cases); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, c := range cases {
			t.Run(c.Name, func(t *testing.T) {
				t.Parallel()
				s.run(t, &c)
			})
		}
	}
}

func (s *Suite[O, D]) run(t *testing.T, c *aCase) {
	b := newRawBackend(t, say(c.answer()))
	o := s.NewOptions()
	if !c.Options.IsZero() {
		if err := c.Options.Decode(o); err != nil {
			t.Fatal(err)
		}
	}
	o.Common().URL = "http://" + b.address + c.Base
	o.Common().Timeout = config.Duration(5 * time.Second)
	m, req := s.open(t, o), c.request()
	got, err := m.Ask(t.Context(), req)
	s.check(t, b, c)
	if id := m.Identity(req); c.Want.Identity != "" && id != c.Want.Identity {
		t.Errorf("Identity = %q, want %q", id, c.Want.Identity)
	}
	if errors.Is(err, middleware.ErrUnavailable) != c.Want.Unavailable {
		t.Fatalf("Ask = %+v, %v, want unavailable: %v", got, err, c.Want.Unavailable)
	}
	if c.Want.Unavailable {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	w := c.Want
	want := middleware.Answer{
		Allowed: w.Allowed, User: w.User, SessionName: w.Name, Sessions: w.Sessions,
		Duration: w.Duration.Duration(), Grant: w.Grant.Duration(), Recheck: w.Recheck.Duration(), Grace: w.Grace.Duration(),
		WholeSession: w.WholeSession, Location: w.Location, Text: got.Text,
	}
	if reach := got.Reach.String(); reach != w.Archive {
		t.Errorf("Ask gives the archive %q, want %q", reach, w.Archive)
	}
	got.Reach = nil
	if got != want || !strings.Contains(got.Text, w.Text) || got.Text == "" {
		t.Errorf("Ask = %+v, want %+v with text %q", got, want, w.Text)
	}
}

func (c *aCase) answer() string {
	text := "HTTP/1.1 " + strconv.Itoa(c.Answer.Status) + " Some Words\r\n"
	for name, value := range c.Answer.Headers {
		text += name + ": " + value + "\r\n"
	}
	return text + "Content-Length: " + strconv.Itoa(len(c.Answer.Body)) + "\r\n\r\n" + c.Answer.Body
}

// received is when every request of a case came in.
var received = time.Date(2026, 1, 31, 20, 15, 0, 0, time.UTC)

func (c *aCase) request() *access.Request {
	r := c.Request
	req := &access.Request{
		Token: r.Token, Query: r.Query, Path: r.Path, Host: r.Host, UserAgent: r.UA, Referer: r.Referer,
		Archive:       match.Archive(r.Path),
		CallerSession: r.Session, Channel: r.Channel, Stream: r.Stream, Protocol: r.Protocol,
		Key: access.Key{0xab, 15: 0xcd}, Received: received,
	}
	if r.IP != "" {
		req.IP = netip.MustParseAddr(r.IP)
	}
	if r.Running != "" {
		req.Session = sessionOf(r.Running)
	}
	return req
}

// sessionOf is the id of a session that has been running for so long.
func sessionOf(age string) uuid.UUID {
	var d config.Duration
	if err := d.UnmarshalText([]byte(age)); err != nil {
		panic(err)
	}
	ms := received.Add(-d.Duration()).UnixMilli()
	id := uuid.UUID{6: 0x70, 8: 0x80}
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}

// check holds what the upstream was sent against the case.
func (s *Suite[O, D]) check(t *testing.T, b *rawBackend, c *aCase) {
	t.Helper()
	if c.Sent.Nothing {
		if n := b.requests.Load(); n != 0 {
			t.Errorf("the backend was asked %d times, want never", n)
		}
		return
	}
	if b.requests.Load() == 0 {
		t.Error("the backend was not asked")
		return
	}
	head, body, _ := strings.Cut(<-b.heads, "\r\n\r\n")
	line, rest, _ := strings.Cut(head, "\r\n")
	method := "GET "
	if c.Sent.Post {
		method = "POST "
	}
	if c.Sent.URI != nil && line != method+*c.Sent.URI+" HTTP/1.1" {
		t.Errorf("request line = %q, want %starget %q", line, method, *c.Sent.URI)
	}
	if body != c.Sent.Body {
		t.Errorf("body = %s, want %s", body, c.Sent.Body)
	}
	s.headers(t, rest, c.Sent.Headers)
}

func (s *Suite[O, D]) headers(t *testing.T, text string, want map[string]string) {
	t.Helper()
	known := append([]string{"Host", "User-Agent", "X-Session-ID", "X-Channel-ID", "X-Real-IP", "X-Real-Path", "X-Real-UA", "X-Real-Host"}, s.Headers...)
	got := map[string]string{}
	for h := range strings.SplitSeq(strings.TrimSpace(text), "\r\n") {
		name, value, _ := strings.Cut(h, ":")
		got[name] = strings.TrimSpace(value)
		if !slices.Contains(known, name) {
			t.Errorf("header %s was sent, which nobody expects", name)
		}
	}
	for name, value := range want {
		if v, ok := got[name]; !ok || v != value {
			t.Errorf("header %s = %q (there: %v), want %q", name, v, ok, value)
		}
	}
}
