package vectors_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"

	"usher.internal/libs/access"
	"usher.internal/libs/decide/decidetest"
	"usher.internal/libs/middleware/upstream"
)

// refuse is a backend that lets nobody in: what it says is not kept.
func refuse(_ *wicked, c net.Conn) {
	_, _ = io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
}

// smuggles are queries of a viewer whose token is T7: with each he would like something else to be
// read than what we send. refused ones never get past the edge.
var smuggles = []struct {
	query   string
	refused bool
}{
	{query: "token=T7&name=evil&ip=6.6.6.6&key=EVIL"},
	{query: "name=evil&ip=6.6.6.6&key=EVIL&token=T7"},
	{query: "token=T7&NAME=evil&Ip=6.6.6.6&KEY=EVIL"},
	{query: "token=T7&%6eame=evil&%69%70=6.6.6.6&%6bey=EVIL"},
	{query: "token=T7&name[]=evil&ip[0]=6.6.6.6&key%5B%5D=EVIL"},
	{query: "token=T7&+name=evil&%20ip=6.6.6.6&key%20=EVIL"},
	{query: "token=T7&qs=token%3DEVIL%26sid%3D1&session_id=evil&request_type=update_session&stream_clients=9"},
	{query: "token=T7&x=%26name%3Devil%26key%3DEVIL"},
	{query: "token=T7&x=%23name=evil"},
	{query: "token=T7&x=%0d%0aX-Real-IP:%206.6.6.6%0d%0a%0d%0aGET%20/evil"},
	{query: "token=T7&user_name=evil&soft_limitation=false&proto=evil&user_agent=evil&host=evil"},
	{query: "token=T7&token=EVIL", refused: true},
	{query: "token=T7&tok%65n=EVIL", refused: true},
	{query: "token=T7&token[]=EVIL", refused: true},
	{query: "token[]=T7", refused: true},
	{query: "token=T7%0d%0aX-Real-IP:%206.6.6.6", refused: true},
	{query: "token=T7%00&key=EVIL", refused: true},
}

// ours are the names that a kind sends into the same list as the viewer's own, besides the
// operator's key; nil for a kind that does not pass the viewer's list on.
var ours = map[string][]string{"http": {}, "iptvportal": {}, "smarty": {"name", "ip"}}

// TestNoViewerReplacesWhatWeSend holds what a backend gets of such a viewer, byte for byte, against
// what it gets of an honest one.
func TestNoViewerReplacesWhatWeSend(t *testing.T) {
	t.Parallel()
	for kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := newWicked(t)
			b.turn(refuse)
			p := newPlace(t, decidetest.Source(t, strings.ReplaceAll(hostilePolicy(kind, b.address, b.address), "checks:", "  fl1: {caller: flussonic, from: [127.0.0.1]}\nchecks:")))
			p.real = true
			c := p.chain(t, decidetest.HTTP, nil)
			defer c.stop()
			honest := c.getsOf(t, b, "token=T7")
			if honest == "" {
				t.Fatal("the backend was not asked about an honest viewer")
			}
			for _, s := range smuggles {
				want := wantSent(kind, honest, s.query)
				if s.refused {
					want = ""
				}
				if got := c.getsOf(t, b, s.query); got != want {
					t.Errorf("%s: the backend got\n%q, want\n%q", s.query, got, want)
				}
			}
			for _, query := range []string{"token=T7;name=evil;ip=6.6.6.6;key=EVIL", "token=T7&x=1;name=evil;ip=6.6.6.6;key=EVIL"} {
				sameValues(t, kind, honest, c.getsOf(t, b, query))
			}
			c.noLines(t, b)
		})
	}
}

// sameValues holds the names that are ours, and the operator's, against those of an honest
// question, by a reader to whom a semicolon is an ampersand.
func sameValues(t *testing.T, kind, honest, got string) {
	t.Helper()
	if got == "" && kind == "ministra json" {
		return // such a token would become a path, and is refused
	}
	for _, name := range append(ours[kind], "key") {
		if a, b := valuesOf(honest, name), valuesOf(got, name); !slices.Equal(a, b) {
			t.Errorf("%s can be read as %q, want %q, in %q", name, b, a, got)
		}
	}
}

func valuesOf(question, name string) (values []string) {
	line, _, _ := strings.Cut(question, " HTTP/1.1\r\n")
	_, query, _ := strings.Cut(line, "?")
	for pair := range strings.SplitSeq(strings.ReplaceAll(query, ";", "&"), "&") {
		if couldBe(pair, name) {
			_, value, _ := strings.Cut(pair, "=")
			values = append(values, value)
		}
	}
	return values
}

// getsOf is what the backend gets of a viewer with this query, with the one thing replaced in which
// two questions must differ lest the edge remember the first.
func (c *chain) getsOf(t *testing.T, b *wicked, query string) string {
	t.Helper()
	c.asked++
	agent := fmt.Sprintf("agent-%04d", c.asked) // as long as what stands for it: bodies have lengths
	b.sent()
	a := c.overHTTP(t, &decidetest.Question{
		Node: "n1", Stream: "bad/x", Session: "1001", Ask: query, UA: agent, Host: "tv.example.com", Path: "/bad/x/index.m3u8",
	}, agent)
	if a.outcome == string(access.Allow) {
		t.Errorf("%s: let in", query)
	}
	heads := b.sent()
	if len(heads) > 1 {
		t.Errorf("%s: %d questions", query, len(heads))
	}
	return strings.ReplaceAll(strings.Join(heads, ""), agent, "agent-ours")
}

// wantSent is what an honest viewer's question becomes with this query: the same, with his own
// part in the place of the honest one's.
func wantSent(kind, honest, query string) string {
	base, _, _ := strings.Cut(kind, " ")
	names, passed := ours[kind]
	switch {
	case passed:
		var kept []string
		for pair := range strings.SplitSeq(query, "&") {
			if !slices.ContainsFunc(append(names, "key"), func(name string) bool { return couldBe(pair, name) }) {
				kept = append(kept, pair)
			}
		}
		return strings.Replace(honest, "token=T7", strings.Join(kept, "&"), 1)
	case base == "ministra":
		return honest
	case strings.HasSuffix(kind, "post"):
		return withBody(honest, `"qs":"token=T7"`, `"qs":`+quoted(query))
	default:
		return strings.Replace(honest, "qs="+upstream.Escape("token=T7"), "qs="+upstream.Escape(query), 1)
	}
}

// couldBe says whether any reader might take the pair for a parameter of that name.
func couldBe(pair, name string) bool {
	for part := range strings.SplitSeq(pair, ";") {
		raw, _, _ := strings.Cut(part, "=")
		read, err := url.QueryUnescape(raw)
		if err != nil {
			read = raw
		}
		read, _, _ = strings.Cut(read, "[")
		if strings.EqualFold(strings.TrimSpace(read), name) {
			return true
		}
	}
	return false
}

// withBody is a POST with one thing replaced in its body.
func withBody(question, old, now string) string {
	head, body, _ := strings.Cut(question, "\r\n\r\n")
	was := fmt.Sprint("\r\nContent-Length: ", len(body))
	body = strings.Replace(body, old, now, 1)
	return strings.Replace(head, was, fmt.Sprint("\r\nContent-Length: ", len(body)), 1) + "\r\n\r\n" + body
}

// quoted is a text in JSON.
func quoted(text string) string {
	raw, _ := json.Marshal(text) // a string can always be written
	return string(raw)
}

// noLines: what a Flussonic passes on is decoded, so that line breaks arrive as such; none of them
// becomes a line of ours.
func (c *chain) noLines(t *testing.T, b *wicked) {
	t.Helper()
	const evil = "%0d%0aX-Real-IP:%206.6.6.6%0d%0aX-Evil:%201%0d%0a%0d%0a"
	for i, field := range []string{"user_agent", "referer", "host", "proto", "session_id", "name", "ip", "token", "qs"} {
		ask := url.Values{}
		for name, value := range map[string]string{
			"name": "bad/x", "proto": "hls", "ip": "203.0.113.7", "token": "T7", "session_id": sessionID(fmt.Sprint(i)), "user_agent": fmt.Sprint("MAG ", i),
		} {
			ask.Set(name, value)
		}
		value, _ := url.QueryUnescape(ask.Get(field) + evil)
		ask.Set(field, value)
		b.sent()
		if a := c.overHTTP(t, &decidetest.Question{Node: "fl1", Stream: "bad/x", Ask: ask.Encode()}, "x"); a.outcome == string(access.Allow) {
			t.Errorf("line breaks in %s: let in", field)
		}
		for _, head := range b.sent() {
			head, _, _ := strings.Cut(head, "\r\n\r\n")
			for _, line := range strings.Split(head, "\r\n") {
				if strings.HasPrefix(line, "X-Evil") || strings.HasPrefix(line, "X-Real-IP") && line != "X-Real-IP: 203.0.113.7" {
					t.Errorf("line breaks in %s became the line %q", field, line)
				}
			}
		}
	}
}
