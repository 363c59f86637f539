package pgd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// ErrNotReachable means that the account which must run PostgreSQL cannot enter the
// directory. The error that wraps it names the folder and the fix.
var ErrNotReachable = errors.New("directory cannot be entered")

// systemAccount is whom the server runs as when we are root: initdb and postgres
// refuse root.
const systemAccount = "postgres"

// account is the system user that runs the server programs.
type account struct {
	name     string
	uid, gid uint32
	other    bool // another user than ours: credentials must be set
}

// serverAccount is ourselves, or, when we are root, the owner of an existing data
// directory, else the system user postgres.
func serverAccount(data string) (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}, nil
	}
	u, err := user.Lookup(systemAccount)
	if info, serr := os.Stat(data); serr == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
			u, err = user.LookupId(strconv.FormatUint(uint64(st.Uid), 10))
		}
	}
	if err != nil {
		return account{}, fmt.Errorf("PostgreSQL refuses to run as root and the system user %q is missing; "+
			"make it (adduser --system --group %[1]s), or run as a normal user: %[2]w", systemAccount, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("user id of %s: %w", u.Username, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("group id of %s: %w", u.Username, err)
	}
	return account{name: u.Username, uid: uint32(uid), gid: uint32(gid), other: true}, nil
}

// command is a server program that runs as the account, in a process group of its
// own: Ctrl-C in our terminal must not stop the database before its users.
func (a account) command(dir, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	// Nothing of ours (PGDATA, PGPORT, LC_*) may change what the server does.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "HOME=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if a.other {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	return cmd
}

// own makes a directory that belongs to the account alone.
func (a account) own(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making directory for PostgreSQL: %w", err)
	}
	if !a.other {
		return nil
	}
	if err := os.Chown(dir, int(a.uid), int(a.gid)); err != nil {
		return fmt.Errorf("giving directory to %s: %w", a.name, err)
	}
	return nil
}

// checkReach says which parent of dir the account may not pass, if it cannot enter dir.
func (a account) checkReach(dir, program string) error {
	if !a.other {
		return nil
	}
	// The kernel is the judge (ACLs, mounts): a child changes into the directory as that user.
	err := a.command(dir, program, "--version").Run()
	if err == nil {
		return nil
	}
	if !errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("running %s as %s: %w", program, a.name, err)
	}
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		info, serr := os.Stat(parent)
		if serr == nil && !a.mayPass(info) {
			return fmt.Errorf("%w: PostgreSQL refuses root and runs as %q, who may not pass %s; "+
				"allow it (chmod o+x %[3]s) or choose another directory, such as /var/lib/usher", ErrNotReachable, a.name, parent)
		}
		if parent == filepath.Dir(parent) {
			return fmt.Errorf("%w: %s as %q: %w", ErrNotReachable, dir, a.name, err)
		}
	}
}

func (a account) mayPass(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	mode := info.Mode().Perm()
	switch {
	case st.Uid == a.uid:
		return mode&0o100 != 0
	case st.Gid == a.gid:
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}
