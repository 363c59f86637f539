package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// startWithin is for one process to say that it works, on a busy machine.
	startWithin = 30 * time.Second
	// stopWithin is for one that was asked to stop.
	stopWithin = 30 * time.Second
	// maxLog lines are kept of a process.
	maxLog = 20_000
)

// programs are the slim programs of this checkout, built once a run, with the race detector if
// the tests have it.
var programs = sync.OnceValues(build)

func TestMain(m *testing.M) {
	// Beside the start of the first database.
	go func() { _, _ = programs() }() // whoever needs them sees the error
	code := m.Run()
	if dir, err := programs(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

func build() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "usher-e2e-"); err != nil {
		return "", err
	}
	args := []string{"build", "-ldflags", "-s -w", "-o", dir + "/"}
	if raceDetector() {
		args = append(args, "-race")
	}
	for _, role := range []string{"edge", "worker", "recorder"} {
		args = append(args, "usher.internal/services/"+role+"/cmd/usher-"+role)
	}
	// In the workspace, as `make build` does it.
	cmd := exec.Command("go", args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("building the programs: %w: %s", err, out)
	}
	return dir, nil
}

func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// process is one of our programs, running. Its methods may be called from any goroutine.
type process struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{} // closed when it is gone and its log is complete
	err    error         // of its end; read after exited

	mu      sync.Mutex // guards what follows
	lines   []string
	changed chan struct{} // closed and made anew with each line
}

// launch runs a program with a configuration file. It ends with the test, or with the test's
// process, however that ends. Whatever its log must never hold fails the test.
func launch(t *testing.T, role, name, config string, env ...string) *process {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), name+".yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &process{name: name, exited: make(chan struct{}), changed: make(chan struct{})}
	p.cmd = exec.Command(filepath.Join(dir, "usher-"+role), "--config", file)
	// A program with the race detector would wait for a second before it ends.
	p.cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	r, w := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	read := make(chan struct{})
	go func() { defer close(read); p.read(r) }()
	go func() {
		p.err = p.cmd.Wait()
		_ = w.Close()
		<-read
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.exited
		p.inspect(t)
	})
	return p
}

func (p *process) read(r io.Reader) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			p.mu.Lock()
			if len(p.lines) < maxLog {
				p.lines = append(p.lines, strings.TrimSuffix(line, "\n"))
			}
			close(p.changed)
			p.changed = make(chan struct{})
			p.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// log is what the process has written so far.
func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// inspect fails the test for what no program may ever write, and shows the end of the log of
// a test that has failed.
func (p *process) inspect(t *testing.T) {
	t.Helper()
	text := p.log()
	for _, never := range []string{"DATA RACE", "panic", "fatal error:"} {
		if at := strings.Index(text, never); at >= 0 {
			t.Errorf("%s wrote %q: %s", p.name, never, text[at:min(len(text), at+4000)])
		}
	}
	if t.Failed() {
		t.Logf("the end of %s's log (%v):\n%s", p.name, p.err, text[max(0, len(text)-4000):])
	}
}

// said waits for a log line with the message and gives the line's attributes.
func (p *process) said(t *testing.T, message string) map[string]any {
	t.Helper()
	timeout := time.After(startWithin)
	seen := 0
	for {
		p.mu.Lock()
		fresh, changed := p.lines[seen:], p.changed
		seen = len(p.lines)
		p.mu.Unlock()
		for _, line := range fresh {
			var attrs map[string]any
			if json.Unmarshal([]byte(line), &attrs) == nil && attrs["msg"] == message {
				return attrs
			}
		}
		select {
		case <-changed:
		case <-p.exited:
			t.Fatalf("%s ended without saying %q: %v\n%s", p.name, message, p.err, p.log())
		case <-timeout:
			t.Fatalf("%s did not say %q within %s:\n%s", p.name, message, startWithin, p.log())
		}
	}
}

func (p *process) signal(s syscall.Signal) {
	select {
	case <-p.exited: // its id may belong to somebody else by now
	default:
		_ = p.cmd.Process.Signal(s) // it may be ending this very moment
	}
}

// kill is kill -9.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.exited
}

// stop asks the process to stop in order, and fails the test if it does not do so well.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(stopWithin):
		t.Errorf("%s did not stop within %s of SIGTERM", p.name, stopWithin)
		p.kill()
		return
	}
	if p.err != nil {
		t.Errorf("%s stopped with %v, want exit code 0", p.name, p.err)
	}
}
