package securetoken

import (
	"errors"
	"fmt"

	"usher.internal/libs/config"
)

// Binds say what the first part of the sum is.
const (
	BindStream = "stream" // stream name (Flussonic) or channel id (Astra)
	BindPath   = "path"   // the path that the viewer asked for (Alta, older Astra)
	// BindRequested is the name that the viewer asked for, where aliases hide the stream's own.
	BindRequested = "requested"
)

// Options are the keys of a check of type securetoken.
type Options struct {
	// Secret is the key that the portal signs with, as a reference.
	Secret config.Secret `yaml:"secret"`
	// Bind is BindStream, BindPath or BindRequested.
	Bind string `yaml:"bind"`
	// CheckIP demands the viewer's address in the sum. Without it a sum over the
	// literal no_check_ip is good too.
	CheckIP bool `yaml:"check_ip"`
	// SaltLength is the exact length of every salt in bytes, 0 for any. It fixes
	// the border between salt and user; without it the border is guarded by the
	// first value seen in the cluster (README.md, "Salt and user").
	SaltLength int `yaml:"salt_length"`
	// RequireUser refuses tokens that name no user.
	RequireUser bool `yaml:"require_user"`
	// AllowEmptyIP accepts sums that leave the address out altogether.
	AllowEmptyIP bool `yaml:"allow_empty_ip"`
	// ClockSkew is tolerated at both ends of a token's time; 0 by default.
	ClockSkew config.Duration `yaml:"clock_skew"`
	// Recheck judges a token's times again when a running session is re-decided.
	Recheck bool `yaml:"recheck"`
}

// NewOptions gives the defaults: bind to the stream and to the address.
func NewOptions() *Options {
	return &Options{Bind: BindStream, CheckIP: true}
}

// Validate says what is wrong with the options; it does not read the secret.
func (o *Options) Validate() error {
	var errs []error
	if o.Secret.IsZero() {
		errs = append(errs, errors.New("secret is missing: write file:/path or env:NAME"))
	}
	if o.Bind != BindStream && o.Bind != BindPath && o.Bind != BindRequested {
		errs = append(errs, fmt.Errorf("bind is %q, want %s, %s or %s", o.Bind, BindStream, BindPath, BindRequested))
	}
	if o.SaltLength < 0 || o.SaltLength > maxSalt {
		errs = append(errs, fmt.Errorf("salt_length is %d, want 0 (any) to %d", o.SaltLength, maxSalt))
	}
	if o.ClockSkew.Duration() < 0 {
		errs = append(errs, errors.New("clock_skew is negative"))
	}
	return errors.Join(errs...)
}
