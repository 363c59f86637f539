package decidetest

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.yaml.in/yaml/v3"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
	"usher.internal/libs/match"
)

// Now is the time at which every file of cases begins.
var Now = time.Unix(1700000100, 0)

// secret is what "file:/secret" in a file's policy holds; "file:/secret=TEXT" holds the text.
const secret = "SECRETKEY"

var secretRef = regexp.MustCompile(`file:/secret(=[\w-]+)?`)

// Level is a way to put a question.
type Level string

// The levels: to the engine alone; to a worker over NATS, with Postgres; to an edge over
// HTTP as the node's streaming server would, with all that stands behind it.
const (
	Engine Level = "engine"
	NATS   Level = "nats"
	HTTP   Level = "http"
)

// File is one file of testdata/cases: a policy and questions to it.
type File struct {
	Name      string            `yaml:"-"`
	Why       map[string]string // texts that stand here to be repeated below
	Policy    string
	Backends  map[string]Backend
	Questions []Question
}

// Question is one question and what must come of it. It stands alone, unless it says that it
// follows the one before it.
type Question struct {
	Name     string
	Follows  bool // what is remembered of the question before stays
	Backends map[string]Backend
	Down     []string // claims, known, grants
	Revoke   string   // ends the grants of this user first
	Later    config.Duration
	At       int64 // what the clock is set to, in seconds of 1970; 0: it goes on
	Country  string
	ASN      uint32
	Org      string
	// Not says at which levels it cannot be put, and why.
	Not map[Level]string
	// AtOnce puts it so many times at the same moment, each as another session.
	AtOnce int `yaml:"at_once"`
	// Until puts it again and again until the answer is the wanted one.
	Until bool

	Stream, Node, Token, Path, Query, UA, Referer, Host string
	IP                                                  string
	Running                                             bool
	Known                                               string // stream of the running session
	Action                                              access.Action
	// Channel and Session are the caller's own id of the stream and of the viewer's session; who
	// names no session opens one.
	Channel, Session string
	// Ask is the query that the caller sends in place of its usual one, Header what it sends
	// in place of its usual lines. For HTTP alone.
	Ask    string
	Header map[string]string

	Want Want
}

// Want is what must come of a question.
type Want struct {
	Outcome, Reason, Text, Location string
	Realm, User, Subject            string
	SessionName                     string `yaml:"session_name"`
	Own                             string // stream after aliasing, by default the one asked for
	Limit                           *int
	Mode                            string
	Archive                         *string // how far, as access.Reach is written
	Lease, Seat                     config.Duration
	Unavailable, Shadow             bool
	Would                           string // "outcome reason"
	Told                            *int
	Asked                           []string // hosts, each once
	Steps                           []string // "name: result", in order
	// Sent are the request lines that each host got, in order: "GET http://…", with * for
	// what differs from one time to the next. SentHeader are header lines of the last of them.
	Sent       map[string][]string
	SentHeader map[string]string `yaml:"sent_header"`
	// Or is the reason of a refusal that some of those who ask at once may meet.
	Or string
	// Live is how many sessions the ledger then holds for the user.
	Live *int
	// HTTP is the caller's answer, by default 200 for a yes and 403 for a no. Values have * for
	// what differs; "" is a header that must not be there.
	// Reason is there only where the edge refuses by itself, in other words.
	HTTP struct {
		Status int
		Header map[string]string
		// Body is what Flussonic is told beside its headers.
		Body   string
		Reason string
	}
}

// Load reads all files of cases in a directory.
func Load(t testing.TB, dir string) []*File {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("finding cases: %v, %d files", err, len(paths))
	}
	var files []*File
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f := &File{Name: strings.TrimSuffix(filepath.Base(path), ".yaml")}
		d := yaml.NewDecoder(strings.NewReader(string(raw)))
		d.KnownFields(true)
		if err := d.Decode(f); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		files = append(files, f)
	}
	return files
}

// Source is a policy's text with files of secrets in place of those that exist nowhere.
func Source(t testing.TB, policy string) string {
	t.Helper()
	dir := t.TempDir()
	return secretRef.ReplaceAllStringFunc(policy, func(ref string) string {
		_, text, given := strings.Cut(ref, "=")
		if !given {
			text = secret
		}
		path := filepath.Join(dir, text)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return "file:" + path
	})
}

// Skips says whether the question cannot be put at the level. It fails the test if the case
// does not say why.
func (q *Question) Skips(t testing.TB, l Level) bool {
	t.Helper()
	why, skips := q.Not[l]
	if skips && len(strings.Fields(why)) < 3 {
		t.Errorf("%s: it is not put at level %s, and the case does not say why", q.Name, l)
	}
	return skips
}

// Now is the time of the question, if the one before was put at that time.
func (q *Question) Now(before time.Time) time.Time {
	if q.At != 0 {
		return time.Unix(q.At, 0)
	}
	return before.Add(q.Later.Duration())
}

// Request is the question as an edge would put it.
func (q *Question) Request() *access.Request {
	req := &access.Request{
		Node: cmp.Or(q.Node, "web"), Stream: q.Stream, Token: q.Token, Path: q.Path, Query: q.Query, UserAgent: q.UA,
		Referer: q.Referer, Host: q.Host, Action: q.Action, Channel: q.Channel, CallerSession: q.Session, Archive: match.Archive(q.Path),
		IP: netip.MustParseAddr(cmp.Or(q.IP, "203.0.113.7")),
	}
	if req.Query == "" && q.Token != "" {
		req.Query = "token=" + q.Token
	}
	if q.Running {
		req.Session, req.Known = uuid.New(), q.Known
	}
	return req
}

// Times is how often the host must have been asked.
func (w *Want) Times(host string) int {
	n := 0
	for _, asked := range w.Asked {
		if asked == host {
			n++
		}
	}
	return n
}

// HoldsNoSecrets looks for token and query in everything that is kept of a decision.
func HoldsNoSecrets(t testing.TB, req *access.Request, text string, steps []access.Step) {
	t.Helper()
	all := text
	for _, s := range steps {
		all += " " + s.Name + " " + s.Result + " " + s.Text
	}
	for _, secret := range []string{req.Token, req.Query} {
		if len(secret) > 4 && strings.Contains(all, secret) {
			t.Errorf("the decision holds token or query: %s", all)
		}
	}
}

// CheckSent holds what the hosts were asked since then against what is wanted.
func (w *Want) CheckSent(t testing.TB, u *Upstream, since map[string]int) {
	t.Helper()
	for name, want := range w.Sent {
		asked := u.Questions(name)
		asked = asked[min(since[name], len(asked)):]
		var got []string
		for _, r := range asked {
			got = append(got, r.Method+" "+r.URL.String())
		}
		if len(got) != len(want) {
			t.Errorf("%s was sent %q, want %q", name, got, want)
			continue
		}
		for i := range got {
			if !Like(got[i], want[i]) {
				t.Errorf("%s was sent\n%s, want\n%s", name, got[i], want[i])
			}
		}
		for header, value := range w.SentHeader {
			if len(asked) == 0 || !Like(fmt.Sprint(asked[len(asked)-1].Header[header]), "["+value+"]") {
				t.Errorf("%s was sent %s other than %s", name, header, value)
			}
		}
	}
}

// Like says whether the text is that of the pattern, in which * is anything.
func Like(text, pattern string) bool {
	parts := strings.Split(pattern, "*")
	last := len(parts) - 1
	if last == 0 {
		return text == pattern
	}
	rest, ok := strings.CutPrefix(text, parts[0])
	if !ok || !strings.HasSuffix(rest, parts[last]) {
		return false
	}
	rest = rest[:len(rest)-len(parts[last])]
	for _, part := range parts[1:last] {
		_, rest, ok = strings.Cut(rest, part)
		if !ok {
			return false
		}
	}
	return true
}
