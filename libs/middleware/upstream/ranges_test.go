package upstream

import (
	"testing"

	"usher.internal/libs/access"
)

func TestReadRanges(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		``:                                 "",
		`OK`:                               "",
		`{}`:                               "",
		`{"allowed_dvr_ranges":null}`:      "",
		`{"allowed_dvr_ranges":[]}`:        "none",
		`{"allowed_dvr_ranges":{}}`:        "none",
		`{"allowed_dvr_ranges":"all"}`:     "none",
		`{"allowed_dvr_ranges":[{}]}`:      "none",
		`{"allowed_dvr_ranges":[{"x":1}]}`: "none",
		`{"allowed_dvr_ranges":[{"opened_at":1710010000,"closed_at":1710020000}],"ad_inject":{"v":2}}`: "window=1710010000-1710020000",
		`{"allowed_dvr_ranges":[{"opened_at":1710010000}]}`:                                            "window=1710010000-",
		`{"allowed_dvr_ranges":[{"closed_at":1710020000},{"opened_at":5}]}`:                            "window=-1710020000",
		`{"allowed_dvr_ranges":[{"opened_at":0,"closed_at":1710020000}]}`:                              "none",
		`{"allowed_dvr_ranges":[{"opened_at":1710020000,"closed_at":1710010000}]}`:                     "none",
		`{"allowed_dvr_ranges":[{"opened_at":1710010000.5}]}`:                                          "none",
	} {
		if got := ReadRanges([]byte(body)).String(); got != want {
			t.Errorf("%s is read as %q, want %q", body, got, want)
		}
	}
	if r := ReadRanges(make([]byte, MaxBody+1)); !r.Closed() {
		t.Errorf("a body that is too long is read as %q", r)
	}
}

// FuzzRanges holds for any body: no panic, and what is opened can be written and read again.
func FuzzRanges(f *testing.F) {
	f.Add([]byte(`{"allowed_dvr_ranges":[{"opened_at":1710010000,"closed_at":1710020000},{"closed_at":1710010000}]}`))
	f.Add([]byte(`{"allowed_dvr_ranges":[]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := ReadRanges(body)
		again, err := access.ParseReach(r.String())
		if err != nil || !again.Equal(r) {
			t.Errorf("%q becomes %v, %v", r, again, err)
		}
	})
}
