package astra

import (
	"testing"

	"usher.internal/services/edge/internal/caller/callertest"
)

func TestEvents(t *testing.T) {
	t.Parallel()
	callertest.GoldenEvents(t, Adapter{}, *update)
}

func FuzzEvents(f *testing.F) {
	callertest.SeedEvents(f)
	f.Fuzz(func(t *testing.T, body []byte) { callertest.SoundEvents(t, Adapter{}, body) })
}
