package smarty

import (
	"testing"

	"usher.internal/libs/middleware/upstream/upstreamtest"
)

type kind = upstreamtest.Suite[*Options, *Middleware]

func suite() *kind {
	return &kind{Kind: "smarty", NewOptions: NewOptions, New: New, Yes: `{"error": 0}`, Reads: true}
}

// strict sends all that it can.
func strict() *kind {
	s := suite()
	s.Setting = func(o *Options) { o.SendName, o.SendIP = true, true }
	return s
}

// ours is what strict sends by itself.
func ours() map[string]string {
	return map[string]string{"name": "a001", "ip": "10.0.0.5", "token": "T"}
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
	suite().Viewer(t, map[string]string{"token": "T"})
	strict().Viewer(t, ours())
}

func FuzzQuestion(f *testing.F) { strict().Fuzz(f, ours()) }

func FuzzURL(f *testing.F) { suite().FuzzURL(f) }
