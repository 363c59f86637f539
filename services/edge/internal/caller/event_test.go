package caller

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestEachFacts(t *testing.T) {
	t.Parallel()
	long := `{"id":"` + strings.Repeat("x", maxEvent) + `"}`
	for body, want := range map[string]struct {
		good, bad int
		fails     bool
	}{
		"": {}, " \n": {}, "[]": {}, "{}": {good: 1}, `[{},{}]`: {good: 2}, "{}\n{}\n": {good: 2}, " [ {} , 5 , null ] ": {good: 1, bad: 2},
		"[{},{": {good: 1, fails: true}, "[{}": {good: 1, fails: true}, "[{} {}]": {good: 1, fails: true}, "[{}]x": {good: 1, fails: true},
		"[{}][{}]": {good: 1, fails: true}, "x": {fails: true}, "event=play_closed": {fails: true}, "{}x": {good: 1, fails: true},
		"[" + long + ",{}]": {good: 1, bad: 1}, "[{\"id\":\"\xff\"},{}]": {good: 1, bad: 1}, strings.Repeat("[", 20000): {fails: true},
	} {
		good, bad := 0, 0
		err := EachFacts(strings.NewReader(body), func(f Facts) {
			if f == nil {
				bad++
				return
			}
			good++
		})
		if _, isBad := errors.AsType[*Bad](err); good != want.good || bad != want.bad || isBad != want.fails || err != nil && !isBad {
			t.Errorf("%.40q: %d good, %d bad, %v; want %+v", body, good, bad, err, want)
		}
	}
}

func TestTimesOfEvents(t *testing.T) {
	t.Parallel()
	want := time.Date(2025, 11, 24, 16, 0, 0, 0, time.UTC)
	for text, ok := range map[string]bool{
		"1764000000": true, "1764000000.0": true, "1764000000000": true, "1764000000000000": true, `"1764000000"`: true,
		`"2025-11-24T17:00:00+01:00"`: true, "1.764e9": true,
		"0": false, "-5": false, "1e300": false, "true": false, `"soon"`: false, "{}": false, "null": false,
	} {
		at := facts([]byte(`{"t":`+text+`}`)).Time("none", "t")
		if ok != at.Equal(want) || !ok && !at.IsZero() {
			t.Errorf("%s is read as %v", text, at)
		}
	}
}

func TestReasonsOfEvents(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`"timeout"`: "timeout", `{"code":"ban"}`: "ban", `{"title":"T","type":"closed"}`: "closed", `{"b":"2","a":"1"}`: "1",
		`{"a":{"b":1},"c":7}`: "7", `"<b>token=K1&x\u0000"`: "_b_token_K1_x", "[1]": "", "null": "", "{}": "",
		`"` + strings.Repeat("x", 100) + `"`: strings.Repeat("x", 64),
	} {
		if got := facts([]byte(`{"reason":` + text + `}`)).Reason("reason"); got != want {
			t.Errorf("%s is read as %q, want %q", text, got, want)
		}
	}
}
