// Package testkit starts the real servers that tests run against. It is imported
// from tests only.
package testkit

import (
	"testing"

	"usher.internal/libs/natsd"
)

// NATS starts an embedded nats-server with JetStream in a fresh directory and a free
// port on loopback, and stops it when the test ends. Writes survive the death of the
// process, not of the machine: tests need no fsync.
func NATS(t testing.TB) *natsd.Server {
	t.Helper()
	s, err := natsd.Start(natsd.Options{
		Dir: t.TempDir(), Name: "test", Listen: "127.0.0.1:0", MaxStore: 1 << 30,
	})
	if err != nil {
		t.Fatalf("starting nats-server: %v", err)
	}
	t.Cleanup(s.Stop)
	return s
}
