package http

import "usher.internal/libs/middleware/upstream"

// Options are the keys of a check of type http: the common ones alone.
type Options struct {
	upstream.Options `yaml:",inline"`
}

// NewOptions gives the defaults.
func NewOptions() *Options { return &Options{Options: upstream.Defaults()} }
