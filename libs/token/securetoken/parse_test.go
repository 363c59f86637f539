package securetoken

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"usher.internal/libs/token"
)

// FuzzVerify holds for any token and query: no panic, no outcome but the three,
// and nobody gets in whose hash was not made with the secret.
func FuzzVerify(f *testing.F) {
	o := NewOptions()
	o.Secret = secretFile(f, "SECRETKEY")
	v, err := New(o)
	if err != nil {
		f.Fatal(err)
	}
	const signed = "bf2c482aea54e449bdd0d9f300b6e13053927aa8"
	for _, tok := range []string{
		signed + "-a1b2c3d4e5f60718293a4b5c6d7e8f90-1700010800-1700000000",
		"561667b74c202ffdb1d12b46a1435444e67267a6-a1b2c3d4e5f60718293a4b5c6d7e8f90-1700010800-1700000000-user42",
		"ca31d23a66bf3cd02cd43400634db7f4a2822352-ab-cd-1700010800-1700000000",
		"42efad399ad9badd71d93e3e37b7018c65f8f0c9-a1u-1700010800-1700000000-42",
		"e8bff06f373694dda657e8417fe76f6b54b69807-a5cd6c00-1669890000-1669810000",
		"-", "", signed + "-", signed + "--1700010800-1700000000", signed + "-a\x80\x00-1700010800-1700000000",
	} {
		f.Add(tok, "token=x&user_id=user42&remote=no_check_ip")
		f.Add(tok, "user_id=%zz&&=&user_id")
	}
	signedHashes := map[string]bool{
		signed: true, "561667b74c202ffdb1d12b46a1435444e67267a6": true, "42efad399ad9badd71d93e3e37b7018c65f8f0c9": true,
		"f8ff20817088e1824ecd4c241b432f5a7c1b20e8": true, "7a27f9466addfbddb3ed76758d38e9f9561a6ea0": true,
	}
	f.Fuzz(func(t *testing.T, tok, query string) {
		id, err := v.Verify(t.Context(), &token.Question{
			Token: tok, Query: query, Stream: "bbc",
			IP: netip.MustParseAddr("203.0.113.7"), Now: time.Unix(1700000100, 0),
		})
		if got, _ := outcome(t, err); got != "allow" {
			return
		}
		if !signedHashes[strings.ToLower(tok[:hashDigits])] {
			t.Errorf("Verify let %q in", tok)
		}
		if id.User != "" && !isUser(id.User) || id.Claim == nil {
			t.Errorf("Verify(%q) = %+v", tok, id)
		}
	})
}

func FuzzReadExtras(f *testing.F) {
	for _, q := range []string{"", "&", "=", "user_id=u&remote=no_check_ip", "user%5Fid=u", "user_id=%", "a=b&user_id=a+b"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		e := readExtras(query)
		values, err := url.ParseQuery(query)
		if err != nil {
			return // ours is meant to be more forgiving, and reads the rest
		}
		if all := values["user_id"]; e.user != "" && (len(all) == 0 || !isUser(e.user)) {
			t.Errorf("readExtras(%q) = %+v, ParseQuery has %q", query, e, all)
		}
		if e.noCheckIP != slices.Contains(values["remote"], noCheckIP) {
			t.Errorf("readExtras(%q) = %+v, ParseQuery has %q", query, e, values["remote"])
		}
	})
}
