package policy

import (
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
)

// Archive is what a rule says of a stream's archive.
type Archive struct {
	// Own counts where the check that accepted the viewer does not say how far he may go; Most
	// holds for everybody. nil: all of it.
	Own, Most *access.Reach
}

// Reach is how far a viewer may go whose check said word of him, nil for nothing.
func (a *Archive) Reach(word *access.Reach) *access.Reach {
	if a == nil {
		return word
	}
	return word.Or(a.Own).And(a.Most)
}

const archiveForms = "allow, deny, or a map such as {depth: 7d, length: 4h}"

// fileArchive is a word or bounds.
type fileArchive struct {
	word   string
	bounds struct {
		Depth     *config.Duration `yaml:"depth"`
		Length    *config.Duration `yaml:"length"`
		MaxDepth  *config.Duration `yaml:"max_depth"`
		MaxLength *config.Duration `yaml:"max_length"`
		Windows   []fileWindow     `yaml:"windows"`
	}
}

type fileWindow struct {
	From string `yaml:"from"`
	To   string `yaml:"to"`
}

// Shape implements config.Shaper.
func (a *fileArchive) Shape(kind config.Kind) any {
	switch kind {
	case config.Scalar:
		return &a.word
	case config.Map:
		return &a.bounds
	default:
		return nil
	}
}

// Wants implements config.Shaper.
func (a *fileArchive) Wants() string { return archiveForms }

// Bounds of times in an archive rule.
const (
	shortArchive = time.Second
	longArchive  = 3650 * day
	maxWindows   = 64
)

func (c *compiler) archive(at path, f *fileArchive) *Archive {
	if f == nil {
		return nil
	}
	if f.word != "" {
		switch choice(c, at, f.word, AuthAllow, AuthAllow, AuthDeny) {
		case AuthDeny:
			return &Archive{Most: access.None()}
		default:
			return nil
		}
	}
	b := &f.bounds
	own := &access.Reach{
		Depth:  c.duration(at.sub("depth"), b.Depth, 0, shortArchive, longArchive),
		Length: c.duration(at.sub("length"), b.Length, 0, shortArchive, longArchive),
	}
	most := &access.Reach{
		Depth:  c.duration(at.sub("max_depth"), b.MaxDepth, 0, shortArchive, longArchive),
		Length: c.duration(at.sub("max_length"), b.MaxLength, 0, shortArchive, longArchive),
	}
	if len(b.Windows) > maxWindows {
		c.errorf(at.sub("windows"), "", "has %d windows; at most %d are read", len(b.Windows), maxWindows)
	}
	if b.Windows != nil {
		most.Windows = []access.Window{} // none: nothing is open
	}
	for i, w := range b.Windows {
		where := at.sub("windows", i)
		from, to := c.moment(where.sub("from"), w.From), c.moment(where.sub("to"), w.To)
		window, err := access.NewWindow(from, to)
		if err != nil {
			c.errorf(where, "", "%s; want from and to, or one of them, such as 2026-01-31T20:15:00Z", err)
			continue
		}
		most.Windows = append(most.Windows, window)
	}
	if b.Depth == nil && b.Length == nil && b.MaxDepth == nil && b.MaxLength == nil && b.Windows == nil {
		c.errorf(at, "", "names no bound; want %s", archiveForms)
	}
	c.exceeds(at, "depth", own.Depth, most.Depth)
	c.exceeds(at, "length", own.Length, most.Length)
	return &Archive{Own: own, Most: most}
}

// exceeds warns of an own bound beyond the ceiling.
func (c *compiler) exceeds(at path, key string, own, most time.Duration) {
	if most > 0 && own > most {
		c.warnf(at.sub(key), "%s is more than max_%s, %s, which counts", config.Duration(own), key, config.Duration(most))
	}
}

// moment reads a time, 0 for none.
func (c *compiler) moment(at path, text string) int64 {
	if text == "" {
		return 0
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		c.errorf(at, "", "%q is no time; want one such as 2026-01-31T20:15:00Z", text)
		return 0
	}
	return t.Unix()
}
