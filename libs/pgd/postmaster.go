package pgd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// postmaster is what a running server writes down about itself (postmaster.pid).
type postmaster struct {
	pid  int
	port int // 0 until the server has got that far
}

// readPostmaster reads the pid file; nil when there is none.
func readPostmaster(data string) (*postmaster, error) {
	raw, err := os.ReadFile(pidFile(data))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading postmaster.pid: %w", err)
	}
	return parsePostmaster(string(raw))
}

// parsePostmaster takes line 1, the pid, and line 4, the port. A single-user
// server writes its pid negated.
func parsePostmaster(text string) (*postmaster, error) {
	lines := strings.Split(text, "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil {
		return nil, fmt.Errorf("postmaster.pid begins with %q: %w", clip(lines[0]), err)
	}
	if pid < 0 {
		pid = -pid
	}
	if pid <= 1 {
		return nil, fmt.Errorf("postmaster.pid names process %d", pid)
	}
	p := &postmaster{pid: pid}
	if len(lines) > 3 {
		// Half written while the server starts: the port then follows a moment later.
		p.port, _ = strconv.Atoi(strings.TrimSpace(lines[3]))
	}
	return p, nil
}

func pidFile(data string) string { return filepath.Join(data, "postmaster.pid") }

// alive says whether the process exists.
func (p *postmaster) alive() bool {
	err := syscall.Kill(p.pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// runs says whether the live process works in data: a pid of a dead server
// may by now belong to anybody. Without /proc the answer is yes: the server's own
// lock then refuses a second start.
func (p *postmaster) runs(data string) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.pid))
	if err != nil {
		_, noProc := os.Stat("/proc/self/cwd")
		return noProc != nil
	}
	if resolved, err := filepath.EvalSymlinks(data); err == nil {
		data = resolved
	}
	return cwd == data
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
