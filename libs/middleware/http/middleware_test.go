package http

import (
	"testing"

	"usher.internal/libs/middleware/upstream/upstreamtest"
)

func suite() *upstreamtest.Suite[*Options, *Middleware] {
	return &upstreamtest.Suite[*Options, *Middleware]{Kind: "http", NewOptions: NewOptions, New: New}
}

func TestCases(t *testing.T) {
	t.Parallel()
	suite().Cases(t)
}

func TestHostileBackends(t *testing.T) {
	t.Parallel()
	suite().Hostile(t)
}

func TestViewersReplaceNothing(t *testing.T) {
	t.Parallel()
	suite().Viewer(t, nil)
}

func FuzzQuestion(f *testing.F) { suite().Fuzz(f, nil) }

func FuzzURL(f *testing.F) { suite().FuzzURL(f) }
