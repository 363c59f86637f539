package pgd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// MinMajor is the oldest PostgreSQL that Usher works with.
const MinMajor = 15

// ErrNoPrograms means that no usable server programs were found. The error that
// wraps it says where they were looked for and how to install them.
var ErrNoPrograms = errors.New("PostgreSQL server programs not found")

// Programs are the server programs of one PostgreSQL installation.
type Programs struct {
	// Bin is the folder that holds postgres and initdb.
	Bin string
	// Major is the major version, 15 or later.
	Major int
}

// FindPrograms looks in PATH, where pg_config points, and where packages put them, and
// takes the newest version; with major not 0, only that one, since a data directory
// opens with its own major version alone.
func FindPrograms(major int) (*Programs, error) {
	var best *Programs
	var seen []string
	for _, bin := range binFolders() {
		v, err := serverVersion(bin)
		if err != nil {
			continue
		}
		seen = append(seen, fmt.Sprintf("%d in %s", v, bin))
		if v < MinMajor || (major != 0 && v != major) {
			continue
		}
		if best == nil || v > best.Major {
			best = &Programs{Bin: bin, Major: v}
		}
	}
	if best != nil {
		return best, nil
	}
	return nil, missingPrograms(major, seen)
}

func missingPrograms(major int, seen []string) error {
	found := "none is installed"
	if len(seen) > 0 {
		found = "found only version " + strings.Join(seen, ", ")
	}
	if major != 0 {
		return fmt.Errorf("%w: the data directory needs version %d, %s; install that version (Debian: apt-get install postgresql-%d)",
			ErrNoPrograms, major, found, major)
	}
	return fmt.Errorf("%w: version %d or newer is needed, %s; run scripts/install, "+
		"or install the package postgresql (Debian, Ubuntu) or postgresql-server (Fedora, RHEL), or give --postgres DSN",
		ErrNoPrograms, MinMajor, found)
}

func binFolders() []string {
	var dirs []string
	if p, err := exec.LookPath("postgres"); err == nil {
		// A link in PATH may stand apart from the other programs.
		if resolved, err := filepath.EvalSymlinks(p); err == nil {
			p = resolved
		}
		dirs = append(dirs, filepath.Dir(p))
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",         // Debian, Ubuntu
		"/usr/pgsql-*/bin",                  // PGDG on Fedora, RHEL
		"/usr/local/pgsql/bin",              // from source
		"/opt/homebrew/opt/postgresql*/bin", // Homebrew
		"/usr/local/opt/postgresql*/bin",
	} {
		found, _ := filepath.Glob(pattern) // only fails on a bad pattern
		dirs = append(dirs, found...)
	}
	return dirs
}

var versionNumber = regexp.MustCompile(`(\d+)(\.\d+|devel|beta|rc)`)

// serverVersion asks postgres itself, and wants initdb beside it: client packages
// bring neither.
func serverVersion(bin string) (int, error) {
	if _, err := os.Stat(filepath.Join(bin, "initdb")); err != nil {
		return 0, err
	}
	out, err := exec.Command(filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return 0, err
	}
	return parseVersion(string(out))
}

func parseVersion(text string) (int, error) {
	m := versionNumber.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("no version in %q", text)
	}
	return strconv.Atoi(m[1])
}
