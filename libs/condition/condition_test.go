package condition_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"usher.internal/libs/condition"
	"usher.internal/libs/network"
)

func language(t testing.TB) *condition.Language {
	t.Helper()
	l, err := condition.New([]string{"office", "vpn"})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func compile(t testing.TB, l *condition.Language, text string) *condition.Expr {
	t.Helper()
	e, problems := l.Compile(text)
	if len(problems) > 0 {
		t.Fatalf("Compile(%s): %+v", text, problems)
	}
	return e
}

func lists() map[string]*network.List {
	return map[string]*network.List{
		"office": network.NewList([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}),
		"vpn":    network.NewList(nil),
	}
}

// facts are those of a viewer in Germany, at a quarter past eleven on a Saturday night there.
func facts() *condition.Facts {
	return &condition.Facts{
		Stream: "sport/1", Host: "tv.example.com", Path: "/sport/1/index.m3u8", Node: "web1", Caller: "nginx", Region: "eu", Edge: "e1",
		IP: netip.MustParseAddr("10.1.2.3"), Country: "DE", ASN: 64500, Org: "Example Net",
		UserAgent: "VLC/3.0.8 LibVLC", Referer: "https://example.com/", Protocol: "hls", Device: "box-1", HasToken: true,
		Time: time.Date(2026, 1, 31, 22, 15, 0, 0, time.UTC), User: "u1", Realm: "main", Sessions: 3, Networks: lists(),
	}
}

func TestHolds(t *testing.T) {
	t.Parallel()
	l := language(t)
	for text, want := range map[string]bool{
		`true`:                            true,
		`stream == "sport/1"`:             true,
		`stream.startsWith("news/")`:      false,
		`host.endsWith(".example.com")`:   true,
		`path.matches("^/sport/[0-9]+/")`: true,
		`node == "web1" && caller == "nginx" && region == "eu" && edge == "e1"`: true,
		`ip in network("10.0.0.0/8")`:                                           true,
		`ip in network("10/8") && ip in networks.office`:                        true,
		`ip in networks.vpn`:                                                    false,
		`!(ip in networks.vpn)`:                                                 true,
		`ip in network("2001:db8::/32")`:                                        false,
		`country in ["DE", "AT"]`:                                               true,
		`country == "" || asn == 0`:                                             false,
		`asn in [64500, 64501] && org.contains("Net")`:                          true,
		`ua.lower().contains("libvlc")`:                                         true,
		`referer == "" || protocol != "hls"`:                                    false,
		`has_token && device == "box-1"`:                                        true,
		`user == "u1" && realm == "main" && sessions > 2`:                       true,
		`time.hour("Europe/Berlin") == 23 && time.hour("UTC") == 22`:            true,
		`time.weekday("Europe/Berlin") in ["sat", "sun"]`:                       true,
		`time.weekday("Asia/Tokyo") == "sun"`:                                   true,
		`time < timestamp("2026-02-01T00:00:00Z")`:                              true,
		`["a", "sport"].exists(p, stream.startsWith(p + "/"))`:                  true,
		`["a", "b"].all(country, country != stream) && country == "DE"`:         true,
		`["DE"].exists(country, country == "XX")`:                               false,
		`stream.size() < 10`:                                                    true,
	} {
		got, err := compile(t, l, text).Holds(facts())
		if err != nil || got != want {
			t.Errorf("%s = %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	l := language(t)
	for _, test := range []struct{ text, at, message, suggestion string }{
		{`cuontry == "DE"`, "1:1", `there is no "cuontry"`, "country"},
		{`ip in networks.ofice`, "1:15", `no network is called "ofice"`, "networks.office"},
		{"stream == \"a\" &&\n  usr == \"b\"", "2:3", `there is no "usr"`, "user"},
		{`stream.startWith("a")`, "1:17", `there is no "startWith"`, "startsWith"},
		{`token == "x"`, "1:1", "token is a secret", ""},
		{`query.contains("x")`, "1:1", "query is a secret", ""},
		{`stream`, "1:1", "gives string; want true or false", ""},
		{`asn == "64500"`, "1:5", "found no matching overload", ""},
		{`stream == `, "1:11", "mismatched input", ""},
		{` `, "1:1", "is empty", ""},
		{`country == "de"`, "1:12", `country is never "de"`, ""},
		{`country in ["DE", "Germany"]`, "1:19", `country is never "Germany"`, ""},
		{`ip in network("10.0.0.300")`, "1:15", "network(): want an address or a prefix", ""},
		{`ip in network(stream)`, "1:15", "network() takes a constant", ""},
		{`time.hour("Europe/Berln") > 3`, "1:11", "hour(): want a time zone", ""},
		{`time.getHours("Europe/Berlin") > 3`, "1:14", "found no matching overload", ""},
		{`path.matches("(a|b|c|d|e|f|g|h|i|j)*") && ` + strings.Repeat(`referer.matches("`+strings.Repeat("x", 100)+`") && `, 20) + "true", "1:1", "may cost up to", ""},
		{strings.Repeat("a", condition.MaxText+1), "1:1", "has 4097 bytes", ""},
	} {
		_, problems := l.Compile(test.text)
		if len(problems) == 0 {
			t.Errorf("%.60s is accepted", test.text)
			continue
		}
		p := problems[0]
		if at := fmt.Sprintf("%d:%d", p.Line, p.Column); at != test.at || !strings.Contains(p.Message, test.message) || p.Suggestion != test.suggestion {
			t.Errorf("%.60s: %s %q, suggestion %q; want %s %q, %q", test.text, at, p.Message, p.Suggestion, test.at, test.message, test.suggestion)
		}
	}
}

func TestWhatIsRead(t *testing.T) {
	t.Parallel()
	l := language(t)
	for text, want := range map[string][3]bool{ // user, place, needs a token
		`stream == "a"`:                             {},
		`user == "a"`:                               {true, false, false},
		`realm == "a" || sessions > 1`:              {true, false, false},
		`country == "DE"`:                           {false, true, false},
		`asn == 1 && has_token`:                     {false, true, true},
		`has_token || stream == "a"`:                {},
		`!has_token`:                                {},
		`stream == "a" && (has_token && org == "")`: {false, true, true},
		`["a"].exists(user, user == stream)`:        {true, false, false}, // careful rather than clever
	} {
		e := compile(t, l, text)
		if got := [3]bool{e.ReadsUser(), e.ReadsPlace(), e.NeedsToken()}; got != want {
			t.Errorf("%s: user, place, token = %v, want %v", text, got, want)
		}
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	l := language(t)
	_, err := compile(t, l, `10 / (sessions - 3) > 1`).Holds(facts())
	if !errors.Is(err, condition.ErrFailed) {
		t.Errorf("dividing by zero: %v, want ErrFailed", err)
	}
	// Texts longer than any that an edge sends cost more than was foreseen.
	f := facts()
	f.Path = strings.Repeat("a", 1<<20)
	heavy := compile(t, l, strings.Repeat(`path.matches("[a-z]*b[a-z]*c") || `, 4)+`path.matches("x")`)
	if _, err := heavy.Holds(f); !errors.Is(err, condition.ErrFailed) {
		t.Errorf("a text of 1 MB: %v, want ErrFailed", err)
	}
	if _, err := heavy.Holds(facts()); err != nil {
		t.Errorf("a usual text: %v", err)
	}
}

func TestLearn(t *testing.T) {
	t.Parallel()
	f := facts()
	e := compile(t, language(t), `user == "u2" && sessions == 7`)
	if got, _ := e.Holds(f); got {
		t.Error("holds before the user is known")
	}
	f.Learn("main", "u2", 7)
	if got, err := e.Holds(f); err != nil || !got {
		t.Errorf("does not hold of the user: %v", err)
	}
}

// The index leaves out only what does not hold.
func TestIndexMissesNothing(t *testing.T) {
	t.Parallel()
	l := language(t)
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	var term func(depth int) string
	term = func(depth int) string {
		if depth > 0 {
			switch random.IntN(5) {
			case 0:
				return "(" + term(depth-1) + " && " + term(depth-1) + ")"
			case 1:
				return "(" + term(depth-1) + " || " + term(depth-1) + ")"
			case 2:
				return "!" + term(depth-1)
			case 3:
				return "(" + term(depth-1) + " ? " + term(depth-1) + " : " + term(depth-1) + ")"
			}
		}
		return "(" + pick(`stream == "a"`, `"b" == stream`, `stream in ["a", "c"]`, `stream.startsWith("a/")`, `stream.startsWith("")`, `node == "n"`,
			`asn == 1`, `asn in [1, 2]`, `country == "DE"`, `ip in network("10/8")`, `ip in network("10.1/16")`, `ip in networks.office`,
			`has_token`, `user != "x"`, `10 / sessions > 1`, `["a"].exists(stream, stream == "a")`, `stream in []`, `true`) + ")"
	}
	exprs := make([]*condition.Expr, 2000)
	for i := range exprs {
		exprs[i] = compile(t, l, term(3))
	}
	index := condition.NewIndex(exprs)
	left := 0
	for range 100 {
		f := &condition.Facts{
			Stream: pick("a", "b", "c", "a/x", ""), Node: pick("n", "m"), Country: pick("DE", ""), ASN: uint32(random.IntN(3)),
			HasToken: random.IntN(2) == 0, Sessions: random.IntN(2), Networks: lists(),
		}
		if ip, err := netip.ParseAddr(pick("10.1.0.1", "10.2.0.1", "11.0.0.1", "2001:db8::1", "")); err == nil {
			f.IP = ip
		}
		found := index.Candidates(f, nil)
		if !slices.IsSorted(found) || len(slices.Compact(slices.Clone(found))) != len(found) {
			t.Fatalf("candidates %v are not in order, each once", found)
		}
		left += len(exprs) - len(found)
		for i, e := range exprs {
			holds, err := e.Holds(f)
			if (holds || err != nil) && !slices.Contains(found, int32(i)) {
				t.Errorf("%s = %v, %v for %+v and is left out", e, holds, err, f)
			}
		}
	}
	if left == 0 {
		t.Error("the index left nothing out")
	}
}

func FuzzCompile(f *testing.F) {
	for _, text := range []string{
		`country in ["DE"] && !(ip in networks.office)`, `time.hour("UTC") < 6`, `stream.matches("^a+$")`, `[1,2].exists(x, x == asn)`,
		`networks`, `{"a": 1}.a == 1`, `user.lower() == "x"`, "\x00", `"\xff" == stream`, `a.b.c.d(1)`, `ip == ip`, `networks.office == network("10/8")`,
	} {
		f.Add(text)
	}
	l := language(f)
	f.Fuzz(func(t *testing.T, text string) {
		e, problems := l.Compile(text)
		if (e == nil) == (len(problems) == 0) {
			t.Fatalf("Compile = %v, %v", e, problems)
		}
		for _, p := range problems {
			if p.Line < 1 || p.Column < 1 || p.Message == "" || strings.Contains(p.Message, "\n") {
				t.Errorf("bad problem %+v", p)
			}
		}
		if e == nil {
			return
		}
		holds, err := e.Holds(facts())
		if err != nil && !errors.Is(err, condition.ErrFailed) {
			t.Errorf("Holds: %v", err)
		}
		if found := condition.NewIndex([]*condition.Expr{e}).Candidates(facts(), nil); (holds || err != nil) && len(found) != 1 {
			t.Errorf("%s = %v, %v and is left out", e, holds, err)
		}
	})
}

func BenchmarkHolds(b *testing.B) {
	l := language(b)
	for _, text := range []string{
		`stream == "sport/1"`, `ua.contains("zzz")`, `country in ["AT", "CH"] && time.hour("Europe/Berlin") < 6`, `!(ip in networks.vpn) && ip in network("10/8")`,
		`path.matches("^/sport/[0-9]+/")`, strings.Repeat(`path.matches("^/news/") || `, 8) + `false`,
	} {
		e, f := compile(b, l, text), facts()
		b.Run(fmt.Sprintf("%.30s", text), func(b *testing.B) {
			for b.Loop() {
				_, _ = e.Holds(f)
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	l := language(b)
	i := 0
	for b.Loop() {
		i++
		compile(b, l, fmt.Sprintf(`stream == "s%d" && country in ["DE", "AT"]`, i))
	}
}
