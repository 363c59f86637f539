package iptvportal

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"usher.internal/libs/config"
	"usher.internal/libs/middleware/upstream"
)

// Variants are the two forms of the question.
const (
	VariantPlain     = "plain"     // as Astra and Alta ask: the viewer's query
	VariantFlussonic = "flussonic" // as Flussonic asks, with soft_limitation=true
)

// Options are the keys of a check of type iptvportal.
type Options struct {
	upstream.Options `yaml:",inline"`
	// Variant is VariantPlain or VariantFlussonic.
	Variant string `yaml:"variant"`
	// UpdateRate is that of the portal's key; 1h by default there too. The portal's
	// session changes about every three of them, and a yes is kept no longer.
	UpdateRate config.Duration `yaml:"update_rate"`
	// Recheck is after how long the portal is asked again about a yes, 1h by default;
	// 0: never while it is kept. Rights are judged by the portal at each question.
	Recheck config.Duration `yaml:"recheck"`
	// Grace is how long a yes goes on when asking again brought a no, since the ticket in
	// the viewer's address may have been replaced; one UpdateRate if it is not given.
	Grace *config.Duration `yaml:"grace"`
	// Identify names the parameters that stand for the viewer. Without it the whole
	// query does, for the portal does not say which of them is what.
	Identify []string `yaml:"identify"`
}

// NewOptions gives the defaults.
func NewOptions() *Options {
	return &Options{
		Options: upstream.Defaults(), Variant: VariantPlain,
		UpdateRate: config.Duration(time.Hour), Recheck: config.Duration(time.Hour),
	}
}

// Validate says what is wrong with the options.
func (o *Options) Validate() error {
	errs := []error{o.Options.Validate()}
	if o.Variant != VariantPlain && o.Variant != VariantFlussonic {
		errs = append(errs, fmt.Errorf("variant is %q, want %s or %s", o.Variant, VariantPlain, VariantFlussonic))
	}
	if o.UpdateRate <= 0 {
		errs = append(errs, errors.New("update_rate must be positive"))
	}
	if o.Recheck < 0 {
		errs = append(errs, errors.New("recheck is negative"))
	}
	if o.Grace != nil && *o.Grace < 0 {
		errs = append(errs, errors.New("grace is negative"))
	}
	if slices.Contains(o.Identify, "") {
		errs = append(errs, errors.New("identify: a name is empty"))
	}
	return errors.Join(errs...)
}

func (o *Options) grace() time.Duration {
	if o.Grace == nil {
		return o.UpdateRate.Duration()
	}
	return o.Grace.Duration()
}
