package pgstore

import (
	"context"
	"testing"

	"usher.internal/libs/admission/admissiontest"
)

func TestWarmLeavesNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	if err := h.Warm(context.Background(), 2); err != nil {
		t.Fatalf("Warm: %v", err)
	}
	if len(h.Live()) != 0 || h.Rows() != 0 {
		t.Errorf("a rehearsal left %d seats and %d rows", len(h.Live()), h.Rows())
	}
}

func TestLedger(t *testing.T) {
	t.Parallel()
	admissiontest.Run(t, func(t *testing.T) admissiontest.Harness { return newHarness(t) })
}
