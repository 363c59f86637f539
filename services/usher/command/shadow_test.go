package command

import (
	"testing"

	"usher.internal/libs/pgstore"
)

func TestShadowWords(t *testing.T) {
	t.Parallel()
	why := "limit"
	for _, tc := range []struct{ outcome, reason, would, want string }{
		{"deny", "refused", "allow", "let in (limit) whom the backend refuses"},
		{"redirect", "refused", "allow", "let in (limit) whom the backend sends elsewhere"},
		{"deny", "refused", "redirect", "sent elsewhere (limit) whom the backend refuses"},
		{"redirect", "refused", "deny", "refused (limit) whom the backend sends elsewhere"},
		{"allow", "granted", "deny", "refused (limit) whom the backend lets in"},
		{"allow", "granted", "redirect", "sent elsewhere (limit) whom the backend lets in"},
		{"allow", "allow_rule", "deny", "refused (limit)"},
		{"allow", "granted", "allow", "ended older sessions (limit)"},
	} {
		r := &pgstore.ShadowRow{Outcome: tc.outcome, Reason: tc.reason, Would: tc.would, WouldReason: &why}
		if got := shadowWords(r); got != tc.want {
			t.Errorf("%s %s, would %s: %q, want %q", tc.outcome, tc.reason, tc.would, got, tc.want)
		}
	}
}
