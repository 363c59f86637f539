package command

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
	"usher.internal/libs/directive"
	"usher.internal/libs/policy"
)

// whom are the criteria of a ban or an override. All that are given must hold.
type whom struct {
	User       string `help:"This user."`
	Realm      string `help:"The user's realm, main if left out; alone: everybody of that realm."`
	IP         string `name:"ip" help:"This address or network, such as 203.0.113.7 or 203.0.113.0/24."`
	Stream     string `help:"These streams: a pattern as in the policy."`
	Node       string `help:"At this node."`
	Device     string `help:"This device, as usher sessions show prints it."`
	Token      string `help:"Who brings this token; - reads it from the standard input. Only its fingerprint is kept." placeholder:"TOKEN"`
	ClusterKey string `help:"File of the cluster's key, for --token where --data is not at hand." placeholder:"FILE"`
}

var errNoKey = errors.New("the token's fingerprint is made with the cluster's key, which is not at hand: give its file with --cluster-key")

// maxTokenLine bounds what is read of the standard input.
const maxTokenLine = 64 << 10

// fill sets the directive's criteria.
func (w whom) fill(src source, in io.Reader, d *directive.Directive) error {
	d.Realm, d.User, d.Stream, d.Node, d.Device = w.Realm, w.User, w.Stream, w.Node, w.Device
	if d.User != "" && d.Realm == "" {
		if realm, user, ok := strings.Cut(d.User, "/"); ok {
			return fmt.Errorf("--user %s may be user %s of realm %s or a user of realm main: say which with --realm", d.User, user, realm)
		}
		d.Realm = policy.DefaultRealm
	}
	if w.IP != "" {
		p, err := config.ParsePrefix(w.IP)
		if err != nil {
			return fmt.Errorf("--ip %q: %w", w.IP, err)
		}
		d.Network = p
	}
	if w.Token == "" {
		return nil
	}
	keyer, err := src.keyer(w.ClusterKey)
	if err != nil {
		return err
	}
	if keyer == nil {
		return errNoKey
	}
	token := w.Token
	if token == "-" && in != nil {
		token, err = bufio.NewReader(io.LimitReader(in, maxTokenLine)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading the token: %w", err)
		}
		token = strings.TrimRight(token, "\r\n")
	}
	if token == "" || len(token) > access.MaxToken {
		return fmt.Errorf("a token has 1 to %d bytes", access.MaxToken)
	}
	d.Token = keyer.Fingerprint(token)
	return nil
}

// span is how long a directive is in force.
type span struct {
	For   time.Duration `help:"How long, such as 2h or 7d." placeholder:"DURATION"`
	Until string        `help:"Until when, such as 2026-12-31 (its beginning, local time) or 2026-12-31T20:00:00Z." placeholder:"TIME"`
}

// end is the span's end, zero for none.
func (s span) end(now time.Time) (time.Time, error) {
	switch {
	case s.For != 0 && s.Until != "":
		return time.Time{}, errors.New("give --for or --until, not both")
	case s.For != 0:
		return now.Add(s.For), nil
	case s.Until == "":
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s.Until, time.Local); err == nil { //nolint:gosmopolitan // the operator's own clock
			return t.UTC().Truncate(time.Millisecond), nil
		}
	}
	return time.Time{}, fmt.Errorf("--until %q is no time: write 2026-12-31, 2026-12-31T20:00 or 2026-12-31T20:00:00Z", s.Until)
}

// order makes the directive that the flags describe.
func order(src source, in io.Reader, w whom, s span, d directive.Directive) (directive.Directive, error) {
	var err error
	if d.ID, err = uuid.NewV7(); err != nil {
		return d, fmt.Errorf("making an id: %w", err)
	}
	d.At, d.Author = time.Now().UTC().Truncate(time.Millisecond), access.Clean(whoami(), access.MaxName)
	if d.Author == "" {
		d.Author = "unknown"
	}
	if d.Until, err = s.end(d.At); err != nil {
		return d, err
	}
	if err := w.fill(src, in, &d); err != nil {
		return d, err
	}
	if err := d.Validate(); err != nil {
		return d, fmt.Errorf("the %s %w", d.Kind, err)
	}
	return d, nil
}
