package ministra

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"usher.internal/libs/config"
	"usher.internal/libs/middleware/upstream"
)

// Variants are the two ways to ask.
const (
	VariantFlussonic = "flussonic" // the endpoint made for Flussonic, which names user and limit
	VariantJSON      = "json"      // the REST resource made for Wowza's plug-in, which names the user alone
)

// Options are the keys of a check of type ministra.
type Options struct {
	upstream.Options `yaml:",inline"`
	// Variant is VariantFlussonic or VariantJSON.
	Variant string `yaml:"variant"`
	// User and Password are the portal's api_auth_login and api_auth_password; for
	// VariantJSON alone.
	User     string        `yaml:"user"`
	Password config.Secret `yaml:"password"`
	// NumericUser refuses what other kinds of Temporary URL leave in the same store:
	// 1 (Wowza) and /get/… (proxy) in place of a subscriber's number.
	NumericUser bool `yaml:"numeric_user"`
}

// NewOptions gives the defaults.
func NewOptions() *Options {
	return &Options{Options: upstream.Defaults(), Variant: VariantFlussonic}
}

// Validate says what is wrong with the options; it does not read the secret.
func (o *Options) Validate() error {
	errs := []error{o.Options.Validate()}
	switch o.Variant {
	case VariantFlussonic:
		if o.User != "" || !o.Password.IsZero() {
			errs = append(errs, errors.New("user and password are for variant: json, the other endpoint asks for none"))
		}
	case VariantJSON:
		if (o.User == "") != o.Password.IsZero() {
			errs = append(errs, errors.New("user and password belong together"))
		}
		if strings.Contains(o.User, ":") {
			errs = append(errs, errors.New("user must not hold a colon"))
		}
	default:
		errs = append(errs, fmt.Errorf("variant is %q, want %s or %s", o.Variant, VariantFlussonic, VariantJSON))
	}
	if u, err := upstream.ParseURL(o.URL); err == nil {
		errs = append(errs, o.validatePath(u))
	}
	return errors.Join(errs...)
}

func (o *Options) validatePath(u *url.URL) error {
	if o.Variant == VariantJSON && strings.HasSuffix(u.Path, ".php") && !strings.HasSuffix(u.Path, endpoint) {
		return errors.New("url: variant: json wants the portal's base, such as http://host/stalker_portal")
	}
	if raw, _ := upstream.Values(u.RawQuery, "token"); len(raw) > 0 {
		return errors.New("url: its query must not hold a token, the viewer's goes there")
	}
	return nil
}
