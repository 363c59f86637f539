package cluster

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"usher.internal/libs/access"
	"usher.internal/libs/pgd"
)

// ErrInUse means that another `usher up` runs on the data directory.
var ErrInUse = errors.New("the data directory is in use by another usher")

// ErrNoData means that no cluster was ever started in the directory.
var ErrNoData = errors.New("no cluster was started here yet")

// Data is the directory of a cluster that `usher up` runs:
//
//	cluster.key    the cluster's key, base64 (0600)
//	nats.token     what processes on other machines show to NATS (0600)
//	postgres.dsn   the connection string in use, if one was given (0600)
//	policy.yaml    the policy, where no other file was given
//	edge.state     what the edge needs after a restart (0600)
//	geoip/         databases of countries, if somebody put them there
//	secrets/       the example's token secret
//	nats/ postgres/  what the embedded servers store
type Data string

// KeyFile is the path of the cluster's key.
func (d Data) KeyFile() string { return filepath.Join(string(d), "cluster.key") }

// TokenFile is the path of the token for NATS clients on other machines.
func (d Data) TokenFile() string { return filepath.Join(string(d), "nats.token") }

// PolicyFile is the path of the policy where no other is given.
func (d Data) PolicyFile() string { return filepath.Join(string(d), "policy.yaml") }

// GeoIPDir is where country databases are looked for unless another place is given.
func (d Data) GeoIPDir() string { return filepath.Join(string(d), "geoip") }

func (d Data) stateFile() string   { return filepath.Join(string(d), "edge.state") }
func (d Data) dsnFile() string     { return filepath.Join(string(d), "postgres.dsn") }
func (d Data) natsDir() string     { return filepath.Join(string(d), "nats") }
func (d Data) postgresDir() string { return filepath.Join(string(d), "postgres") }
func (d Data) secretFile() string  { return filepath.Join(string(d), "secrets", "site") }

// DSN is the Postgres connection string in use. The error wraps ErrNoData before the first start.
func (d Data) DSN() (string, error) {
	given, err := d.givenDSN()
	if err != nil || given != "" {
		return given, err
	}
	dsn, err := pgd.ReadDSN(d.postgresDir())
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: %s; start one with usher up --data %[2]s, or name another directory with --data", ErrNoData, d)
	}
	return dsn, err
}

// givenDSN is what an earlier --postgres said, "" if it was never given.
func (d Data) givenDSN() (string, error) {
	raw, err := os.ReadFile(d.dsnFile())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the connection string in use: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// Keyer reads the cluster's key.
func (d Data) Keyer() (*access.Keyer, error) { return access.LoadKeyer(d.KeyFile()) }

// open makes the directory and locks it against a second process. The lock ends with the
// process, however that ends.
func (d Data) open() (*os.File, error) {
	if _, err := os.Stat(string(d)); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(string(d), 0o711); err != nil {
			return nil, fmt.Errorf("making the data directory: %w", err)
		}
		// Postgres may run as another user, who passes through; the umask may say otherwise.
		if err := os.Chmod(string(d), 0o711); err != nil {
			return nil, fmt.Errorf("making the data directory: %w", err)
		}
	}
	f, err := os.OpenFile(filepath.Join(string(d), "usher.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	_ = f.Close() // nothing was written
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: %s; stop that one first, or give --data another directory", ErrInUse, d)
	}
	return nil, fmt.Errorf("locking the data directory: %w", err)
}

// makeKeys makes the cluster's key and the NATS token if they are not there yet.
func (d Data) makeKeys() error {
	if err := makeSecret(d.KeyFile(), access.ClusterKeySize); err != nil {
		return err
	}
	return makeSecret(d.TokenFile(), 24)
}

// makeSecret writes n random bytes in base64 to a new file; one that exists stays.
func makeSecret(path string, n int) error {
	secret := make([]byte, n)
	_, _ = rand.Read(secret) // never fails (crypto/rand)
	return writeNew(path, []byte(base64.StdEncoding.EncodeToString(secret)+"\n"), 0o600)
}

// writeNew writes a file as a whole, or leaves one that is there as it is.
func writeNew(path string, content []byte, mode fs.FileMode) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return replace(path, content, mode)
}

// replace puts the content in place in one step: after a crash the file is old or new.
func replace(path string, content []byte, mode fs.FileMode) error {
	next := path + ".new"
	if err := os.WriteFile(next, content, mode); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	return nil
}
