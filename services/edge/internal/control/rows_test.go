package control

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

type named struct {
	ID Value `json:"id"`
	N  Value `json:"n"`
}

func TestRows(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		ids  string
		bad  int
		err  error
		next string
	}{
		`{"sessions":[{"id":"a"},{"id":7}],"next":"c1"}`:                  {ids: "a 7 ", next: "c1"},
		`{"next":"c1","timing":{"x":[1]},"sessions":[{"id":"a","n":{}}]}`: {ids: "a ", next: "c1"},
		`[{"id":"a"}]`: {ids: "a "},
		`[]`:           {},
		`{"sessions":[1,"x",null,[],{"id":"a"}]}`: {ids: " a ", bad: 3},
		`{"sessions":[{"id":["a"]},{"id":"b"}]}`:  {ids: " b "},
		`{"sessions":[{"id":"a"}`:                 {ids: "a ", err: ErrAnswer},
		`{"sessions":[{"id":"a"}]`:                {ids: "a ", err: ErrAnswer},
		`{"sessions":null}`:                       {},
		`{"sessions":{}}`:                         {err: ErrAnswer},
		`{"sessions":[],"sessions":[]}`:           {err: ErrAnswer},
		`{"error":"no"}`:                          {err: ErrAnswer},
		`<html>`:                                  {err: ErrAnswer},
		``:                                        {err: ErrAnswer},
		`"sessions"`:                              {err: ErrAnswer},
		`{"sessions":[` + strings.Repeat("[", 20000): {err: ErrAnswer},
	} {
		ids := ""
		rest, bad, err := Rows(strings.NewReader(text), "sessions", func(r *named) { ids += r.ID.ID() + " " })
		if ids != want.ids || bad != want.bad || !errors.Is(err, want.err) {
			t.Errorf("%.60s: %q, %d bad, %v; want %+v", text, ids, bad, err, want)
		}
		if next, _ := rest["next"].Opaque(10); err == nil && next != want.next {
			t.Errorf("%.60s: next %q, want %q", text, next, want.next)
		}
	}
}

func TestValue(t *testing.T) {
	t.Parallel()
	value := func(text string) (v Value) {
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	for text, want := range map[string]int64{"5": 5, `"5"`: 5, "-5": 0, "1.9": 1, "1e400": 0, `"x"`: 0, "true": 0, "1e18": 1e18, "9e18": 9e18, "1e19": 0} {
		if got := value(text).Int(); got != want {
			t.Errorf("Int(%s) = %d, want %d", text, got, want)
		}
	}
	for text, want := range map[string]string{
		`"a"`: "a", "7": "7", "1e3": "1e3", `"a\u0000"`: "", `"a\nb"`: "", "null": "", `"` + strings.Repeat("x", 10000) + `"`: "",
	} {
		if got := value(text).ID(); got != want {
			t.Errorf("ID(%.20s) = %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]time.Time{"1700000000": time.Unix(1700000000, 0), "1700000000123": time.UnixMilli(1700000000123), "0": {}, "1e300": {}} {
		if got := value(text).Time(); !got.Equal(want) {
			t.Errorf("Time(%s) = %s, want %s", text, got, want)
		}
	}
	for text, want := range map[string]string{
		`"10.0.0.5"`: "10.0.0.5", `"10.0.0.5:4711"`: "10.0.0.5", `"::ffff:10.0.0.5"`: "10.0.0.5", `"[2001:db8::5]:80"`: "2001:db8::5", `"x"`: "invalid IP",
	} {
		if got := value(text).IP().String(); got != want {
			t.Errorf("IP(%s) = %s, want %s", text, got, want)
		}
	}
	for text, want := range map[string]time.Duration{"90": 90 * time.Second, "1.5": 1500 * time.Millisecond, "-1": 0, `"NaN"`: 0, "1e300": 10 * 365 * 24 * time.Hour} {
		if got := value(text).Seconds(); got != want {
			t.Errorf("Seconds(%s) = %s, want %s", text, got, want)
		}
	}
	for text, want := range map[string]string{`"de"`: "DE", `"D1"`: "", `"DEU"`: "", "12": ""} {
		if got := value(text).Country(); got != want {
			t.Errorf("Country(%s) = %q, want %q", text, got, want)
		}
	}
}
