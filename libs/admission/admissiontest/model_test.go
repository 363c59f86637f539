package admissiontest

import "testing"

func TestModel(t *testing.T) {
	t.Parallel()
	Run(t, func(*testing.T) Harness { return NewModel() })
}
