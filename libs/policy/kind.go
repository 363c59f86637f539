package policy

import (
	"reflect"
	"strings"
	"time"

	"usher.internal/libs/config"
)

// Problem is what is wrong with a policy, or worth a warning.
type Problem = config.Problem

// Kind is a type of check that a policy may name.
type Kind struct {
	// Type is the word of the policy: securetoken, http …
	Type string
	// Upstream is true for middlewares.
	Upstream bool
	// InAddress is true for verifiers whose proof stands in the viewer's query or path, and not
	// only where the node's `token` says: they are asked about viewers without a token too.
	InAddress bool
	// NewOptions gives a pointer to a struct with yaml tags that holds the
	// defaults. If it has Validate() error, that is asked after decoding. An option
	// `timeout` is the most that one question takes.
	NewOptions func() any
	// NamesUser says whether a check with these options may name a user; nil means yes.
	NamesUser func(options any) bool
	// Grant, of a middleware, is how long a yes is kept where neither it nor the policy says.
	Grant time.Duration
	// OddNumber says that the number of sessions it sends is not meant as a limit of screens, so
	// that a rule's own comes before it unless the policy says from: middleware.
	OddNumber bool
	// PlaylistTrust says whether edges hand out playlists of the check's users to the public, and
	// which proxies they believe; nil: no.
	PlaylistTrust func(options any) (public bool, trust []config.Prefix)
	// ReadsAddress says InAddress for these options; nil means no.
	ReadsAddress func(options any) bool
}

// timeoutOf reads the option timeout, 0 if the kind has none.
func timeoutOf(options any) time.Duration {
	v := reflect.Indirect(reflect.ValueOf(options))
	for _, f := range reflect.VisibleFields(v.Type()) {
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "timeout" {
			continue
		}
		switch d := v.FieldByIndex(f.Index).Interface().(type) {
		case config.Duration:
			return d.Duration()
		case time.Duration:
			return d
		}
	}
	return 0
}
