package flussonic

import (
	"errors"
	"fmt"

	"usher.internal/libs/middleware/upstream"
)

// Methods are the two forms of the question.
const (
	MethodGet  = "get"  // fields in the query, as for on_play and auth
	MethodPost = "post" // fields as a JSON object, as for on_publish
)

// Options are the keys of a check of type flussonic.
type Options struct {
	upstream.Options `yaml:",inline"`
	// Method is MethodGet or MethodPost.
	Method string `yaml:"method"`
}

// NewOptions gives the defaults. A 302 is this protocol's way to send viewers elsewhere.
func NewOptions() *Options {
	o := &Options{Options: upstream.Defaults(), Method: MethodGet}
	o.Redirect = true
	return o
}

// Validate says what is wrong with the options.
func (o *Options) Validate() error {
	errs := []error{o.Options.Validate()}
	if o.Method != MethodGet && o.Method != MethodPost {
		errs = append(errs, fmt.Errorf("method is %q, want %s or %s", o.Method, MethodGet, MethodPost))
	}
	return errors.Join(errs...)
}
