package cluster_test

import (
	"bufio"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"usher.internal/libs/testkit"
)

// program builds the real binary once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "usher-bin-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "usher")
	args := append([]string{"build", "-o", path}, buildFlags...)
	out, err := exec.Command("go", append(args, "usher.internal/services/usher/cmd/usher")...).CombinedOutput()
	if err != nil {
		err = &buildError{string(out), err}
	}
	return path, err
})

type buildError struct {
	out string
	err error
}

func (e *buildError) Error() string { return e.err.Error() + ": " + e.out }

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := program(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// process is `usher up` as a process of its own.
type process struct {
	*exec.Cmd
	// printed is what it wrote until it was ready.
	printed string
	ended   chan error
}

// start runs `usher up` and waits until it says that it is ready.
func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, append([]string{"up", "--data", dir}, args...)...)
	logs, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = logs
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: cmd, ended: make(chan error, 1)}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // for tests that failed half way
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		p.printed += lines.Text() + "\n"
		if strings.Contains(lines.Text(), "psql") {
			break
		}
	}
	if !strings.Contains(p.printed, "usher is ready") {
		_ = cmd.Wait()
		text, _ := os.ReadFile(logs.Name())
		t.Fatalf("usher up is not ready; it printed %q and %s", p.printed, text)
	}
	go func() {
		for lines.Scan() { // what follows is not looked at, but must not block it
		}
		p.ended <- cmd.Wait()
	}()
	return p
}

// end sends the signal and waits for the end.
func (p *process) end(t *testing.T, sig syscall.Signal) error {
	t.Helper()
	if err := p.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.ended:
		return err
	case <-time.After(time.Minute):
		t.Fatalf("usher up still runs a minute after %v", sig)
		return nil
	}
}

var (
	curlLine = regexp.MustCompile(`(?m)^  curl -i (.*)$`)
	quoted   = regexp.MustCompile(`(-H )?'([^']*)'`)
)

// curls are the requests that the program printed for pasting: one allowed, one refused.
func (p *process) curls(t *testing.T) (allowed, refused *http.Request) {
	t.Helper()
	lines := curlLine.FindAllStringSubmatch(p.printed, -1)
	if len(lines) != 2 {
		t.Fatalf("%d curl lines were printed, want 2:\n%s", len(lines), p.printed)
	}
	return request(t, lines[0][1]), request(t, lines[1][1])
}

func request(t *testing.T, args string) *http.Request {
	t.Helper()
	h, target := http.Header{}, ""
	for _, m := range quoted.FindAllStringSubmatch(args, -1) {
		if m[1] == "" {
			target = m[2]
			continue
		}
		name, value, _ := strings.Cut(m[2], ": ")
		h.Add(name, value)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = h
	return r
}

func (p *process) dsn(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command(p.Path, "dsn", "--data", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestBinary is what a new user does: start, paste, look, and have the machine fail.
func TestBinary(t *testing.T) {
	t.Parallel()
	dir := testkit.Dir(t)
	p := start(t, dir, "--http", "127.0.0.1:0")
	allowed, refused := p.curls(t)
	first := send(t, allowed)
	if first.status != http.StatusOK {
		t.Errorf("the line for an allowed viewer = %+v, want 200", first)
	}
	if a := send(t, refused); a.status != http.StatusForbidden {
		t.Errorf("the line for a refused viewer = %+v, want 403", a)
	}
	dsn := p.dsn(t, dir)
	if got := outcome(t, dsn, first.decision); got != "allow granted" {
		t.Errorf("the row of the allowed viewer says %q", got)
	}

	if err := p.end(t, syscall.SIGKILL); err == nil {
		t.Error("the process survived kill -9")
	}
	p = start(t, dir, "--http", "127.0.0.1:0")
	if got := p.dsn(t, dir); got != dsn {
		t.Error("the connection string changed after kill -9")
	}
	if got := outcome(t, dsn, first.decision); got != "allow granted" {
		t.Errorf("after kill -9 the row says %q", got)
	}
	allowed, _ = p.curls(t)
	if a := send(t, allowed); a.status != http.StatusOK {
		t.Errorf("after kill -9 an allowed viewer = %+v, want 200", a)
	}

	if err := p.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	if pid, err := os.ReadFile(filepath.Join(dir, "postgres", "data", "postmaster.pid")); err == nil {
		t.Errorf("Postgres still runs after SIGTERM: %s", pid)
	}
}

// TestTermWhileAsked sends SIGTERM under load: whoever got a connection gets an answer.
func TestTermWhileAsked(t *testing.T) {
	t.Parallel()
	dir := testkit.Dir(t)
	p := start(t, dir, "--http", "127.0.0.1:0", "--postgres", testkit.EmptyDSN(t))
	template, _ := p.curls(t)
	var asking sync.WaitGroup
	stop := make(chan struct{})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}, Timeout: 10 * time.Second}
	for i := range 8 {
		asking.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				r := template.Clone(t.Context())
				r.Header.Set("User-Agent", "load "+strconv.Itoa(i)+" "+strconv.Itoa(n))
				resp, err := client.Do(r)
				if err != nil {
					// Refused connections are the only fault: the listener is gone.
					if !strings.Contains(err.Error(), "connection refused") {
						t.Errorf("a question was lost: %v", err)
					}
					return
				}
				if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusForbidden {
					t.Errorf("answered %d while stopping", resp.StatusCode)
				}
				_ = resp.Body.Close()
			}
		})
	}
	err := p.end(t, syscall.SIGTERM)
	close(stop)
	asking.Wait()
	if err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
}

// TestRefusedStarts: what is wrong at the start is told at once, with the way out.
func TestRefusedStarts(t *testing.T) {
	t.Parallel()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	write(t, bad, "version: 1\nnodes:\n  web1: {caller: nginx, from: [127.0.0.1], tokens: [\"query:t\"]}\n")
	noSecret := filepath.Join(t.TempDir(), "secret.yaml")
	write(t, noSecret, "version: 1\nchecks:\n  site: {type: securetoken, secret: \"file:/nowhere\"}\nstreams:\n  - {match: \"**\", auth: site}\n")
	for name, c := range map[string]struct {
		args []string
		says []string
	}{
		"port in use":    {[]string{"--http", taken.Addr().String()}, []string{"--http", "in use"}},
		"bad policy":     {[]string{"--policy", bad}, []string{bad + ":3:", "tokens", `did you mean "token"?`}},
		"no such policy": {[]string{"--policy", bad + ".not"}, []string{"no such file"}},
		"missing secret": {[]string{"--policy", noSecret}, []string{"site", "/nowhere"}},
		"bad dsn":        {[]string{"--postgres", "postgres://usher@127.0.0.1:1/usher?connect_timeout=1"}, []string{"is the server up"}},
		"many workers":   {[]string{"--workers", "1000"}, []string{"--workers"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"up", "--data", testkit.Dir(t), "--http", "127.0.0.1:0"}, c.args...)
			out, err := exec.Command(path, args...).CombinedOutput()
			if err == nil {
				t.Fatalf("usher up started:\n%s", out)
			}
			for _, text := range c.says {
				if !strings.Contains(string(out), text) {
					t.Errorf("it does not say %q:\n%s", text, out)
				}
			}
		})
	}
}

func TestSecondUp(t *testing.T) {
	t.Parallel()
	dir := testkit.Dir(t)
	p := start(t, dir, "--http", "127.0.0.1:0", "--postgres", testkit.EmptyDSN(t))
	out, err := exec.Command(p.Path, "up", "--data", dir, "--http", "127.0.0.1:0").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "in use by another usher") {
		t.Errorf("a second usher up on the same data = %v:\n%s", err, out)
	}
	if err := p.end(t, syscall.SIGINT); err != nil {
		t.Errorf("SIGINT: %v", err)
	}
}
