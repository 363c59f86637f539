package access_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"sync"
	"testing"

	"usher.internal/libs/access"
)

func TestKeysAreHMACsOverPartsWithTheirLengths(t *testing.T) {
	t.Parallel()
	secret := make([]byte, access.ClusterKeySize)
	secret[0] = 7
	k, err := access.NewKeyer(secret)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("\x00\x00\x00\x01a\x00\x00\x00\x02bc"))
	want := access.Key(mac.Sum(nil)[:16])
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				_ = k.Key("something longer than the others", "x")
				if got := k.Key("a", "bc"); got != want {
					t.Errorf("Key = %s, want %s", got, want)
					return
				}
			}
		})
	}
	wg.Wait()
	if k.Key("ab", "c") == want {
		t.Error("a border between two parts can be moved")
	}
	if !k.Fingerprint("").IsZero() || k.Fingerprint("a") == k.Key("a") {
		t.Error("the empty token has a fingerprint, or fingerprints have no purpose of their own")
	}
}
