package jwt

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"usher.internal/libs/config"
)

// What becomes of a token of another issuer.
const (
	OtherPass   = "pass"   // it is not this check's: the next one may know it
	OtherRefuse = "refuse" // it is refused
)

// Options are the keys of a check of type jwt.
type Options struct {
	// Secret of HS256, HS384 and HS512; KeyFile is a PEM, JWK or JWKS file; JWKS is fetched.
	// Exactly one of the three is set.
	Secret  config.Secret `yaml:"secret"`
	KeyFile string        `yaml:"key_file"`
	JWKS    JWKS          `yaml:"jwks"`
	// Algorithms, if any are named, are the only ones taken. The key decides in any case.
	Algorithms []string `yaml:"algorithms"`
	// Issuer and Audience, if any are named, must hold one that the token names.
	Issuer   Words `yaml:"iss"`
	Audience Words `yaml:"aud"`
	// OtherIssuer is OtherPass or OtherRefuse.
	OtherIssuer string `yaml:"other_issuer"`
	// Claims says which claim is what.
	Claims Claims `yaml:"claims"`
	// RequireUser refuses tokens that name no user, RequireExp those that never end.
	RequireUser bool `yaml:"require_user"`
	RequireExp  bool `yaml:"require_exp"`
	// MaxAge refuses tokens that were issued (iat) longer ago; 0: none.
	MaxAge config.Duration `yaml:"max_age"`
	// ClockSkew is tolerated at both ends of a token's time.
	ClockSkew config.Duration `yaml:"clock_skew"`
	// Recheck judges a token's times again when a running session is re-decided.
	Recheck bool `yaml:"recheck"`
}

// JWKS is a key set that the issuer publishes.
type JWKS struct {
	URL string `yaml:"url"`
	// Refresh is how often it is fetched, Timeout the most that one fetch takes.
	Refresh config.Duration `yaml:"refresh"`
	Timeout config.Duration `yaml:"timeout"`
	// Keep is how long keys are trusted that cannot be refreshed; 0: for ever.
	Keep config.Duration `yaml:"keep"`
	// PlainHTTP allows http:// to other hosts than this one. Whoever can change what comes by it
	// can make tokens.
	PlainHTTP bool `yaml:"plain_http"`
}

// Claims names claims; a dot leads into an object ("realm_access.id"). "" reads none.
type Claims struct {
	User     string `yaml:"user"`
	Device   string `yaml:"device"`
	Sessions string `yaml:"sessions"`
	// Stream holds names, Streams patterns, of the streams that the token is good for. Where
	// either is named, a token without both is refused.
	Stream  string `yaml:"stream"`
	Streams string `yaml:"streams"`
	// IP holds addresses and networks. Where it is named, a token without it is refused.
	IP string `yaml:"ip"`
}

// Words are one text or several.
type Words []string

// Shape implements config.Shaper.
func (w *Words) Shape(kind config.Kind) any {
	switch kind {
	case config.Scalar:
		*w = make(Words, 1)
		return &(*w)[0]
	case config.List:
		return (*[]string)(w)
	default:
		return nil
	}
}

// Wants implements config.Shaper.
func (*Words) Wants() string { return "a text or a list of texts" }

// NewOptions gives the defaults.
func NewOptions() *Options {
	return &Options{
		JWKS:        JWKS{Refresh: config.Duration(10 * time.Minute), Timeout: config.Duration(5 * time.Second)},
		Claims:      Claims{User: "sub"},
		OtherIssuer: OtherPass,
		RequireExp:  true,
		ClockSkew:   config.Duration(30 * time.Second),
	}
}

// Validate says what is wrong with the options; it reads no key.
func (o *Options) Validate() error {
	var errs []error
	given := 0
	for _, is := range []bool{!o.Secret.IsZero(), o.KeyFile != "", o.JWKS.URL != ""} {
		if is {
			given++
		}
	}
	if given != 1 {
		errs = append(errs, errors.New("want one of secret (file:/path or env:NAME), key_file and jwks: {url: …}"))
	}
	if o.KeyFile != "" && !filepath.IsAbs(o.KeyFile) {
		errs = append(errs, errors.New("key_file: want an absolute path"))
	}
	if o.JWKS.URL != "" {
		errs = append(errs, o.JWKS.validate())
	}
	for _, a := range o.Algorithms {
		if !slices.Contains(algorithms, jose.SignatureAlgorithm(a)) {
			errs = append(errs, fmt.Errorf("algorithms: %q is not known; known are %s", a, algorithmNames()))
		}
	}
	if o.OtherIssuer != OtherPass && o.OtherIssuer != OtherRefuse {
		errs = append(errs, fmt.Errorf("other_issuer is %q, want %s or %s", o.OtherIssuer, OtherPass, OtherRefuse))
	}
	for _, claim := range []string{o.Claims.User, o.Claims.Device, o.Claims.Sessions, o.Claims.Stream, o.Claims.Streams, o.Claims.IP} {
		if slices.Contains(strings.Split(claim, "."), "") && claim != "" {
			errs = append(errs, fmt.Errorf("claims: %q has an empty name in it", claim))
		}
	}
	if o.RequireUser && o.Claims.User == "" {
		errs = append(errs, errors.New("require_user is set, but claims.user names no claim"))
	}
	return errors.Join(errs...)
}

func (j *JWKS) validate() error {
	var errs []error
	u, err := url.Parse(j.URL)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		errs = append(errs, errors.New("jwks: url: want https://host/path"))
	case u.User != nil || u.Fragment != "":
		errs = append(errs, errors.New("jwks: url must not hold a user, a password or a fragment"))
	case u.Scheme == "http" && !j.PlainHTTP && !loopback(u.Hostname()):
		errs = append(errs, errors.New("jwks: url: want https: who can change an answer on its way can make tokens; plain_http: true takes it all the same"))
	}
	if j.Refresh.Duration() < time.Second {
		errs = append(errs, errors.New("jwks: refresh is shorter than 1s"))
	}
	if j.Timeout <= 0 {
		errs = append(errs, errors.New("jwks: timeout must be positive"))
	}
	return errors.Join(errs...)
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// NamesUser says whether tokens under these options may name a user.
func (o *Options) NamesUser() bool { return o.Claims.User != "" }
