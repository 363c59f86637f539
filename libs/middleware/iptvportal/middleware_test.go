package iptvportal

import (
	"testing"

	"usher.internal/libs/middleware/upstream/upstreamtest"
)

type kind = upstreamtest.Suite[*Options, *Middleware]

func suite() *kind { return &kind{Kind: "iptvportal", NewOptions: NewOptions, New: New} }

// flussonic is the other variant.
func flussonic() *kind {
	s := suite()
	s.Setting = func(o *Options) { o.Variant = VariantFlussonic }
	return s
}

// ours is what the other variant sends by itself.
func ours() map[string]string {
	return map[string]string{"name": "a001", "ip": "10.0.0.5", "token": "T", "soft_limitation": "true", "request_type": "new_session"}
}

func TestCases(t *testing.T) {
	t.Parallel()
	suite().Cases(t)
}

func TestHostilePortals(t *testing.T) {
	t.Parallel()
	t.Run("plain", suite().Hostile)
	t.Run("flussonic", flussonic().Hostile)
}

func TestViewersReplaceNothing(t *testing.T) {
	t.Parallel()
	suite().Viewer(t, nil)
	flussonic().Viewer(t, ours())
}

func FuzzQuestion(f *testing.F) { flussonic().Fuzz(f, ours()) }

func FuzzURL(f *testing.F) { suite().FuzzURL(f) }
