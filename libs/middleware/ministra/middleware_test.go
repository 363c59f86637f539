package ministra

import (
	"testing"

	"usher.internal/libs/middleware/upstream/upstreamtest"
)

type kind = upstreamtest.Suite[*Options, *Middleware]

func suite() *kind {
	return &kind{Kind: "ministra", NewOptions: NewOptions, New: New, Headers: []string{"Authorization"}}
}

// jsonSuite is the other way to ask.
func jsonSuite() *kind {
	s := suite()
	s.Setting = func(o *Options) { o.Variant = VariantJSON }
	s.Yes, s.Reads = `{"status":"OK","results":"17"}`, true
	return s
}

func TestCases(t *testing.T) {
	t.Parallel()
	suite().Cases(t)
}

func TestHostilePortals(t *testing.T) {
	t.Parallel()
	t.Run("flussonic", suite().Hostile)
	t.Run("json", jsonSuite().Hostile)
}

func TestViewersReplaceNothing(t *testing.T) {
	t.Parallel()
	suite().Viewer(t, map[string]string{"token": "T"})
	jsonSuite().Viewer(t, nil)
}

func FuzzQuestion(f *testing.F) { suite().Fuzz(f, map[string]string{"token": "T"}) }

func FuzzURL(f *testing.F) { suite().FuzzURL(f) }
