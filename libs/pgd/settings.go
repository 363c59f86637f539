package pgd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	settingsFile = "usher.conf"
	// A unix socket's path ends at 107 bytes; the server adds "/.s.PGSQL.<port>.lock".
	maxSocketDir = 107 - len("/.s.PGSQL.65535.lock")

	defaultMaxConns = 100
)

// include makes the server read our settings after its own; ALTER SYSTEM still wins
// over both.
func (c *cluster) include(data string) error {
	f, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("opening postgresql.conf: %w", err)
	}
	_, err = f.WriteString("\ninclude_if_exists = '" + settingsFile + "'  # written anew at each start by usher\n")
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("including our settings in postgresql.conf: %w", err)
	}
	return nil
}

func (c *cluster) writeSettings(port int) error {
	return c.writeFor(filepath.Join(c.data(), settingsFile), []byte(c.settings(port)))
}

// settings suit one machine that runs everything: an insert-heavy, small hot set.
func (c *cluster) settings(port int) string {
	sockets := ""
	if len(c.run()) <= maxSocketDir {
		sockets = c.run()
	}
	s := []string{
		"# Written at each start of usher; change settings with ALTER SYSTEM instead.",
		"listen_addresses = '127.0.0.1'",
		fmt.Sprintf("port = %d", port),
		"unix_socket_directories = " + quote(sockets),
		"unix_socket_permissions = 0700",
		fmt.Sprintf("max_connections = %d", c.maxConns),
		"password_encryption = scram-sha-256",
		"timezone = 'UTC'",
		"shared_buffers = 256MB",
		"wal_compression = on",
		"max_wal_size = 2GB",
		"checkpoint_timeout = 15min",
		"checkpoint_completion_target = 0.9",
		"random_page_cost = 1.1", // solid state disks
		"jit = off",              // its compile time is longer than our queries
		"autovacuum_naptime = 15s",
		"log_timezone = 'UTC'",
		"logging_collector = on",
		"log_directory = 'log'",
		"log_filename = 'postgresql-%a.log'", // a week, then over again
		"log_truncate_on_rotation = on",
		"log_rotation_age = 1d",
		"log_rotation_size = 0",
		"log_line_prefix = '%m [%p] %q%u@%d %a '",
		"log_min_error_statement = panic", // statements hold tokens' fingerprints and names of users
		"log_checkpoints = off",
	}
	if c.unsafe {
		s = append(s, "fsync = off", "full_page_writes = off", "shared_buffers = 64MB")
	}
	return strings.Join(s, "\n") + "\n"
}

func quote(v string) string { return "'" + strings.ReplaceAll(v, "'", "''") + "'" }
