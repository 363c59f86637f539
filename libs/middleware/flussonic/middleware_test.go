package flussonic

import (
	"testing"

	"usher.internal/libs/middleware/upstream/upstreamtest"
)

type kind = upstreamtest.Suite[*Options, *Middleware]

func suite() *kind {
	return &kind{Kind: "flussonic", NewOptions: NewOptions, New: New, Headers: []string{"Content-Type", "Content-Length"}}
}

// post is the other form of the question.
func post() *kind {
	s := suite()
	s.Setting = func(o *Options) { o.Method = MethodPost }
	return s
}

// ours is what every question holds.
func ours() map[string]string {
	return map[string]string{
		"name": "a001", "ip": "10.0.0.5", "token": "T", "proto": "tshttp", "request_type": "new_session", "request_number": "0",
		"session_id": "ab000000-0000-8000-8000-0000000000cd", "stream_clients": "0", "total_clients": "0",
	}
}

func TestCases(t *testing.T) {
	t.Parallel()
	suite().Cases(t)
}

func TestHostileBackends(t *testing.T) {
	t.Parallel()
	t.Run("get", suite().Hostile)
	t.Run("post", post().Hostile)
}

func TestViewersReplaceNothing(t *testing.T) {
	t.Parallel()
	suite().Viewer(t, ours())
	post().Viewer(t, ours())
}

func FuzzQuestion(f *testing.F) { suite().Fuzz(f, ours()) }

func FuzzURL(f *testing.F) { suite().FuzzURL(f) }
