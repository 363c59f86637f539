// Package e2e_test runs whole programs, each role in processes of its own, and does to them what
// happens to programs: kill -9, SIGSTOP, SIGTERM, a NATS and a Postgres that go and come back.
// What viewers get while all is well is tested in the folder viewing.
package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"usher.internal/libs/token/securetoken"
)

// secret is what the portal signs its tokens with.
const secret = "e2e-secret-of-the-portal"

const saltLength = 8

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// signer makes the tokens of a portal: good ones of a user for a stream.
func signer(t *testing.T) func(stream, user string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	write(t, path, secret)
	o := securetoken.NewOptions()
	o.CheckIP, o.SaltLength = false, saltLength
	if err := o.Secret.UnmarshalText([]byte("file:" + path)); err != nil {
		t.Fatal(err)
	}
	return func(stream, user string) string {
		text, err := securetoken.Sign(o, securetoken.Ticket{
			Stream: stream, User: user, Start: time.Now().Add(-time.Minute), End: time.Now().Add(time.Hour),
		})
		if err != nil {
			panic(fmt.Sprintf("a token for %s of %s: %v", stream, user, err)) // a mistake in the test
		}
		return text
	}
}

// eventually waits until ok says so, and fails the test when that takes too long.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not within %s: %s", within, what)
		case <-tick.C:
		}
	}
}
