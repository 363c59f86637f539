package securelink

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"usher.internal/libs/config"
)

// Forms are named after nginx's directives.
const (
	FormMD5    = "secure_link_md5"    // base64url MD5 over a template
	FormSecret = "secure_link_secret" // the older form: /prefix/hex MD5(link + secret)/link
)

// Options are the keys of a check of type secure_link.
type Options struct {
	// Secret stands in the template where nginx's own has it in clear.
	Secret config.Secret `yaml:"secret"`
	// Form is FormMD5 or FormSecret.
	Form string `yaml:"form"`
	// Hash is the template of what is hashed (README.md, "The template").
	Hash string `yaml:"hash"`
	// MD5 and Expires name the arguments of the query; no Expires: links do not end.
	MD5     string `yaml:"md5"`
	Expires string `yaml:"expires"`
	// Path says where hash and time stand in the path instead, such as "/{md5}/{expires}{path}".
	Path string `yaml:"path"`
	// Cut are endings that are taken off the path before it is hashed.
	Cut []string `yaml:"cut"`
	// User names the argument that holds the user; the template must cover it.
	User string `yaml:"user"`
	// ClockSkew is tolerated behind a link's end.
	ClockSkew config.Duration `yaml:"clock_skew"`
	// Recheck judges a link's end again when a running session is re-decided.
	Recheck bool `yaml:"recheck"`
}

// NewOptions gives the defaults: the example of nginx's own documentation.
func NewOptions() *Options {
	return &Options{Form: FormMD5, Hash: "{expires}{path}{ip} {secret}", MD5: "md5", Expires: "expires"}
}

// Validate says what is wrong with the options; it does not read the secret.
func (o *Options) Validate() error {
	var errs []error
	if o.Secret.IsZero() {
		errs = append(errs, errors.New("secret is missing: write file:/path or env:NAME"))
	}
	if o.ClockSkew.Duration() < 0 {
		errs = append(errs, errors.New("clock_skew is negative"))
	}
	switch o.Form {
	case FormMD5:
		errs = append(errs, o.validateMD5())
	case FormSecret:
		if o.Path != "" || o.User != "" || len(o.Cut) > 0 || o.Hash != NewOptions().Hash {
			errs = append(errs, errors.New("form "+FormSecret+" has one layout: it takes no hash, path, cut and user"))
		}
	default:
		errs = append(errs, fmt.Errorf("form is %q, want %s or %s", o.Form, FormMD5, FormSecret))
	}
	return errors.Join(errs...)
}

func (o *Options) validateMD5() error {
	var errs []error
	t, err := parseTemplate(o.Hash)
	if err != nil {
		errs = append(errs, fmt.Errorf("hash: %w", err))
	}
	if o.Path != "" {
		if err := checkLayout(o.Path, o.Expires != ""); err != nil {
			errs = append(errs, fmt.Errorf("path: %w", err))
		}
	} else if !isArgument(o.MD5) {
		errs = append(errs, fmt.Errorf("md5 is %q, want the name of an argument: letters, digits and _", o.MD5))
	}
	if o.Expires != "" && !isArgument(o.Expires) {
		errs = append(errs, fmt.Errorf("expires is %q, want the name of an argument: letters, digits and _", o.Expires))
	}
	if err == nil {
		errs = append(errs, o.validateCover(t))
	}
	if slices.Contains(o.Cut, "") {
		errs = append(errs, errors.New("cut holds an empty text"))
	}
	return errors.Join(errs...)
}

// validateCover refuses templates under which a viewer could write what he likes.
func (o *Options) validateCover(t template) error {
	var errs []error
	if !t.has(partSecret, "") {
		errs = append(errs, errors.New("hash does not hold {secret}: write it where nginx's secure_link_md5 has the secret itself"))
	}
	if o.Expires != "" && !t.has(partExpires, "") {
		errs = append(errs, errors.New(`hash does not hold {expires}: a viewer could write any end; write expires: "" if links do not end`))
	}
	if o.Expires == "" && t.has(partExpires, "") {
		errs = append(errs, errors.New("hash holds {expires}, but expires names no argument"))
	}
	if o.Path != "" && t.has(partWhole, "") {
		errs = append(errs, errors.New("hash holds {uri}, in which the hash itself would stand: write {path}"))
	}
	if o.User != "" && !t.has(partArgument, o.User) {
		errs = append(errs, fmt.Errorf("user is not covered by hash: a viewer could write any; add {arg_%s} to it", o.User))
	}
	return errors.Join(errs...)
}

// isArgument says whether s can be named in nginx as $arg_s.
func isArgument(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, nameLetters) == ""
}
