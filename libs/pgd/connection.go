package pgd

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
)

// Ports are taken below the range that kernels hand out to outgoing connections, so
// that a port which was free once is free again at the next start.
const (
	firstPort = 20000
	lastPort  = 32000
)

// owner owns the cluster, and database is the one that DSN names.
const (
	owner    = "usher"
	database = "usher"
)

// connection is what a client must know; it is kept beside the data.
type connection struct {
	Port     int    `json:"port"`
	Password string `json:"password"`
}

// ReadDSN is the connection string of the cluster in dir, whether it runs or not.
// The error wraps fs.ErrNotExist when no cluster was ever made there.
func ReadDSN(dir string) (string, error) {
	c, err := readConnection(dir)
	if err != nil {
		return "", err
	}
	return c.dsn(database), nil
}

func (c connection) dsn(db string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(owner, c.Password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Port)),
		Path:     "/" + db,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

func connectionFile(dir string) string { return filepath.Join(dir, "connection.json") }

func readConnection(dir string) (connection, error) {
	var c connection
	raw, err := os.ReadFile(connectionFile(dir))
	if err != nil {
		return c, fmt.Errorf("reading how to connect to PostgreSQL: %w", err)
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, fmt.Errorf("reading %s: %w", connectionFile(dir), err)
	}
	if c.Port <= 0 || c.Port > 65535 || c.Password == "" {
		return c, fmt.Errorf("reading %s: port or password is missing", connectionFile(dir))
	}
	return c, nil
}

// loadOrMake keeps what is there. A cluster whose password file is gone cannot be
// opened by a new password, and says so.
func loadOrMake(dir string, clusterExists bool) (connection, error) {
	c, err := readConnection(dir)
	if err == nil {
		return c, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	if clusterExists {
		return c, fmt.Errorf("the cluster in %s has lost its file connection.json (port and password): restore it from a backup: %w", dir, err)
	}
	port, err := freePort()
	if err != nil {
		return c, err
	}
	c = connection{Port: port, Password: rand.Text()}
	return c, c.save(dir)
}

// save replaces the file in one step: a reader sees the old or the new one.
func (c connection) save(dir string) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encoding connection: %w", err)
	}
	next := connectionFile(dir) + ".new"
	if err := os.WriteFile(next, append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("keeping connection: %w", err)
	}
	if err := os.Rename(next, connectionFile(dir)); err != nil {
		return fmt.Errorf("keeping connection: %w", err)
	}
	return nil
}

func freePort() (int, error) {
	for range 200 {
		n, err := rand.Int(rand.Reader, big.NewInt(lastPort-firstPort))
		if err != nil {
			return 0, fmt.Errorf("choosing a port: %w", err)
		}
		if port := firstPort + int(n.Int64()); portFree(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port between %d and %d on 127.0.0.1", firstPort, lastPort)
}

func portFree(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
