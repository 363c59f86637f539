package pgstore

import (
	"testing"

	"usher.internal/libs/admission/admissiontest"
)

func TestLedger(t *testing.T) {
	t.Parallel()
	admissiontest.Run(t, func(t *testing.T) admissiontest.Harness { return newHarness(t) })
}
