package pgd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// cluster is a data directory and who runs it.
type cluster struct {
	dir      string // absolute; holds data, run and connection.json
	programs *Programs
	account  account
	unsafe   bool
	maxConns int
}

func (c *cluster) data() string { return filepath.Join(c.dir, "data") }
func (c *cluster) run() string  { return filepath.Join(c.dir, "run") }

// clusterMajor is the major version whose initdb has once finished here, 0 if none has.
func clusterMajor(dir string) (major int, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, "data", "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading version of cluster: %w", err)
	}
	major, err = strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return 0, fmt.Errorf("reading version of cluster: %w", err)
	}
	return major, nil
}

// prepare makes the directories and checks that the account can reach them.
func (c *cluster) prepare() error {
	if err := makeOpenDir(c.dir); err != nil {
		return err
	}
	if err := c.account.own(c.run()); err != nil {
		return err
	}
	return c.account.checkReach(c.run(), filepath.Join(c.programs.Bin, "postgres"))
}

// makeOpenDir makes dir so that others may pass it but not list it, whatever the
// umask says: the server may run as another user.
func makeOpenDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("making directory for PostgreSQL: %w", err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return fmt.Errorf("making directory for PostgreSQL: %w", err)
	}
	return nil
}

// initdb makes the cluster beside its place and moves it there when it is
// complete, so that an interrupted run leaves nothing half made.
func (c *cluster) initdb(password string) error {
	next := c.data() + ".new"
	if err := os.RemoveAll(next); err != nil {
		return fmt.Errorf("removing an unfinished cluster: %w", err)
	}
	if err := c.account.own(next); err != nil {
		return err
	}
	pwfile := filepath.Join(c.run(), "password")
	if err := c.writeFor(pwfile, []byte(password+"\n")); err != nil {
		return err
	}
	defer func() { _ = os.Remove(pwfile) }() // it holds what connection.json holds
	args := []string{
		"--pgdata=" + next, "--username=" + owner, "--pwfile=" + pwfile,
		"--auth-local=scram-sha-256", "--auth-host=scram-sha-256",
		"--encoding=UTF8", "--locale=C", "--data-checksums",
	}
	if c.unsafe {
		args = append(args, "--no-sync", "--no-instructions")
	}
	out, err := c.account.command(c.run(), filepath.Join(c.programs.Bin, "initdb"), args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("making a PostgreSQL cluster with initdb: %w: %s", err, lastLines(out))
	}
	if err := c.include(next); err != nil {
		return err
	}
	if err := os.Rename(next, c.data()); err != nil {
		return fmt.Errorf("moving the new cluster to its place: %w", err)
	}
	return nil
}

// writeFor writes a file that only the account may read.
func (c *cluster) writeFor(path string, content []byte) error {
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	if !c.account.other {
		return nil
	}
	if err := os.Chown(path, int(c.account.uid), int(c.account.gid)); err != nil {
		return fmt.Errorf("giving %s to %s: %w", filepath.Base(path), c.account.name, err)
	}
	return nil
}

// lastLines is the end of a program's output, on one line, for an error message.
func lastLines(out []byte) string {
	const most = 5
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	if len(lines) > most {
		lines = lines[len(lines)-most:]
	}
	return string(bytes.Join(lines, []byte("; ")))
}
