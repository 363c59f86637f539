package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"
)

const startWithin = time.Minute

// roles are the processes that a run starts besides itself: this program, by its first argument.
var roles = map[string]func(ctx context.Context, args []string) error{
	"yardstick": yardstick,
	"cluster":   runCluster,
}

// addresses are what a child tells when it is ready.
type addresses struct {
	// HTTP is where questions are asked.
	HTTP netip.AddrPort `json:"http"`
	// Echo is where the yardstick asks a worker that does nothing, over NATS.
	Echo netip.AddrPort `json:"echo"`
}

// child is a process of a role. It ends when its standard input does, so that it cannot outlive us.
type child struct {
	addresses
	cmd   *exec.Cmd
	stdin io.Closer
	log   string
}

// spawn starts a role and waits until it is ready. name is that of its profile, "" for none.
func (l *lab) spawn(ctx context.Context, role, name string, args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{log: filepath.Join(l.dir, role+".log")}
	c.cmd = exec.Command(self, append([]string{role}, args...)...)
	c.cmd.Env = append(os.Environ(), "USHER_LOG_LEVEL=warn")
	if l.profile != "" && name != "" {
		c.cmd.Env = append(c.cmd.Env, "BENCH_PROFILE="+filepath.Join(l.profile, name+".pprof"))
	}
	// Ctrl-C reaches us alone; we stop the children in order.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(c.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c.cmd.Stderr = log
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", role, err)
	}
	if err := c.ready(ctx, stdout); err != nil {
		said, _ := os.ReadFile(c.log) // without it there is still the error
		return nil, errors.Join(fmt.Errorf("%s did not start: %w: %s", role, err, said), c.stop())
	}
	return c, nil
}

func (c *child) ready(ctx context.Context, stdout io.Reader) error {
	line := make(chan error, 1)
	go func() {
		text, err := bufio.NewReader(stdout).ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(text, &c.addresses)
		}
		line <- err
	}()
	select {
	case err := <-line:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(startWithin):
		return errors.New("it took too long")
	}
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// stop lets the child end by itself.
func (c *child) stop() error {
	_ = c.stdin.Close() // it may have ended already
	if err := c.cmd.Wait(); err != nil {
		said, _ := os.ReadFile(c.log) // without it there is still the error
		return fmt.Errorf("%w: %s", err, said)
	}
	return nil
}

// asChild is the life of a role: serve runs until our parent closes our standard input. It
// calls ready once.
func asChild(ctx context.Context, serve func(ctx context.Context, ready func(addresses)) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is all that matters
		cancel()
	}()
	if path := os.Getenv("BENCH_PROFILE"); path != "" {
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer func() {
			pprof.StopCPUProfile()
			writeAllocations(strings.TrimSuffix(path, ".pprof") + ".allocs.pprof")
		}()
	}
	return serve(ctx, func(a addresses) { _ = json.NewEncoder(os.Stdout).Encode(a) })
}

// writeAllocations writes what was allocated since the start, and by whom.
func writeAllocations(path string) {
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "allocations:", err)
	}
}
