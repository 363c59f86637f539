package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// maxSecret bounds what is read from a secret's file; keys are far shorter.
const maxSecret = 64 << 10

// Secret is a reference to a secret, "file:/path" or "env:NAME". The secret itself
// is only read by Resolve, and the reference is shown nowhere by formatting.
type Secret struct{ reference string }

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

var (
	errSecretForm = errors.New("want a reference to the secret, file:/path or env:NAME, not the secret itself")
	errSecretPath = errors.New("want an absolute path after file:, such as file:/etc/usher/secret")
	errSecretName = errors.New("want the name of an environment variable after env:, such as env:SITE_SECRET")
)

// ParseSecret reads a reference. Its errors do not repeat the text: somebody
// may have written the secret itself.
func ParseSecret(reference string) (Secret, error) {
	scheme, rest, found := strings.Cut(reference, ":")
	switch {
	case !found || scheme != "file" && scheme != "env":
		return Secret{}, errSecretForm
	case scheme == "file" && !filepath.IsAbs(rest):
		return Secret{}, errSecretPath
	case scheme == "env" && !envName.MatchString(rest):
		return Secret{}, errSecretName
	}
	return Secret{reference}, nil
}

// IsZero says that no reference was given.
func (s Secret) IsZero() bool { return s.reference == "" }

// Reference is what the secret is read by, for a process that hands it to the machine where the
// secret is. It holds no secret, but is nobody else's business.
func (s Secret) Reference() string { return s.reference }

// Resolve reads the secret, without line ends at its end. It is an error if
// there is none or it is empty; the error names the reference, never the secret.
func (s Secret) Resolve() (string, error) {
	scheme, rest, _ := strings.Cut(s.reference, ":")
	var value string
	switch scheme {
	case "file":
		text, err := readSecret(rest)
		if err != nil {
			return "", fmt.Errorf("reading secret: %w", err)
		}
		value = text
	case "env":
		text, ok := os.LookupEnv(rest)
		if !ok {
			return "", fmt.Errorf("environment variable %s is not set", rest)
		}
		value = text
	default:
		return "", errors.New("no secret is configured")
	}
	value = strings.TrimRight(value, "\r\n")
	if value == "" {
		return "", fmt.Errorf("secret %s is empty", s.reference)
	}
	return value, nil
}

func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(text) > maxSecret {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxSecret)
	}
	return string(text), err
}

// String hides the reference.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return "[secret]"
}

// GoString hides the reference from %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue hides the reference from logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText hides the reference from JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what ParseSecret reads.
func (s *Secret) UnmarshalText(text []byte) error {
	v, err := ParseSecret(string(text))
	if err != nil {
		return err
	}
	*s = v
	return nil
}
