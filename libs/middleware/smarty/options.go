package smarty

import (
	"errors"

	"usher.internal/libs/middleware/upstream"
)

// Options are the keys of a check of type smarty.
type Options struct {
	upstream.Options `yaml:",inline"`
	// SendName sends what is played, so that a token opens its own channel alone: the
	// caller's id of it, else the stream.
	SendName bool `yaml:"send_name"`
	// Names are the ids that Smarty knows, by the caller's own, where they differ.
	Names map[string]string `yaml:"names"`
	// SendIP sends the viewer's address.
	SendIP bool `yaml:"send_ip"`
}

// NewOptions gives the defaults.
func NewOptions() *Options { return &Options{Options: upstream.Defaults()} }

// Validate says what is wrong with the options.
func (o *Options) Validate() error {
	errs := []error{o.Options.Validate()}
	if len(o.Names) > 0 && !o.SendName {
		errs = append(errs, errors.New("names: nothing is sent without send_name: true"))
	}
	if u, err := upstream.ParseURL(o.URL); err == nil {
		for _, name := range []string{"token", "name", "ip"} {
			if raw, _ := upstream.Values(u.RawQuery, name); len(raw) > 0 {
				errs = append(errs, errors.New("url: its query must not hold token, name or ip"))
				break
			}
		}
	}
	return errors.Join(errs...)
}
