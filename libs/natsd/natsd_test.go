package natsd_test

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"usher.internal/libs/natsd"
)

func start(t *testing.T, o natsd.Options) *natsd.Server {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.MaxStore = 1 << 30
	s, err := natsd.Start(o)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(s.Stop)
	return s
}

func dial(t *testing.T, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatalf("Connect: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func stream(t *testing.T, nc *nats.Conn) nats.JetStreamContext {
	t.Helper()
	js, err := nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestInProcessNeedsNoSocket(t *testing.T) {
	t.Parallel()
	s := start(t, natsd.Options{Token: "secret"})
	if s.ClientURL() != "" || s.Addr() != nil {
		t.Errorf("it listens on %q", s.ClientURL())
	}
	nc := dial(t, "", nats.InProcessServer(s.InProcess()))
	if _, err := stream(t, nc).AddStream(&nats.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Errorf("AddStream: %v", err)
	}
}

func TestDataSurvivesARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 3 {
		s := start(t, natsd.Options{Dir: dir, SyncAlways: true})
		nc := dial(t, "", nats.InProcessServer(s.InProcess()))
		js := stream(t, nc)
		if _, err := js.AddStream(&nats.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
			t.Fatal(err)
		}
		if ack, err := js.Publish("s", []byte("x")); err != nil || ack.Sequence != uint64(i+1) { //nolint:gosec // small
			t.Errorf("Publish = %+v, %v, want sequence %d", ack, err, i+1)
		}
		nc.Close()
		s.Stop()
		s.Stop() // twice is once
	}
}

func TestOneProcessADirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, natsd.Options{Dir: dir})
	if _, err := natsd.Start(natsd.Options{Dir: dir}); !errors.Is(err, natsd.ErrLocked) {
		t.Errorf("second Start = %v, want ErrLocked", err)
	}
	s.Stop()
	start(t, natsd.Options{Dir: dir})
}

// childEnv makes the test binary the victim of TestDataSurvivesKill9.
const childEnv = "NATSD_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
	}
	os.Exit(m.Run())
}

// child stores acknowledged messages until it is killed, and says which.
func child(dir string) {
	s, err := natsd.Start(natsd.Options{Dir: dir, MaxStore: 1 << 30})
	if err != nil {
		panic(err)
	}
	nc, err := nats.Connect("", nats.InProcessServer(s.InProcess()))
	if err != nil {
		panic(err)
	}
	js, err := nc.JetStream()
	if err != nil {
		panic(err)
	}
	if _, err := js.AddStream(&nats.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		panic(err)
	}
	for {
		if _, err := js.Publish("s", []byte("x")); err != nil {
			panic(err)
		}
		if _, err := os.Stdout.WriteString("."); err != nil {
			panic(err)
		}
	}
}

func TestDataSurvivesKill9(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for round := range 2 {
		acked := runAndKill(t, dir)
		s := start(t, natsd.Options{Dir: dir}) // also: the lock died with the process
		nc := dial(t, "", nats.InProcessServer(s.InProcess()))
		info, err := stream(t, nc).StreamInfo("S")
		if err != nil {
			t.Fatal(err)
		}
		if info.State.LastSeq < acked {
			t.Errorf("round %d: stream holds %d, %d were acknowledged", round, info.State.LastSeq, acked)
		}
		nc.Close()
		s.Stop()
	}
}

func runAndKill(t *testing.T, dir string) (acked uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }() // killed
	defer func() { _ = cmd.Process.Kill() }()
	buf := make([]byte, 512)
	for acked < 500 {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatalf("child ended after %d messages: %v", acked, err)
		}
		acked += uint64(n) //nolint:gosec // at most len(buf)
	}
	return acked
}

func TestWhoMayComeIn(t *testing.T) {
	t.Parallel()

	t.Run("beyond loopback not without a secret", func(t *testing.T) {
		t.Parallel()
		for _, listen := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:4222"} {
			if _, err := natsd.Start(natsd.Options{Dir: t.TempDir(), Listen: listen}); !errors.Is(err, natsd.ErrOpen) {
				t.Errorf("listen %q = %v, want ErrOpen", listen, err)
			}
		}
	})
	t.Run("with the token only", func(t *testing.T) {
		t.Parallel()
		s := start(t, natsd.Options{Listen: "0.0.0.0:0", Token: "secret"})
		url := "nats://127.0.0.1" + s.Addr().String()[strings.LastIndexByte(s.Addr().String(), ':'):]
		for _, opts := range [][]nats.Option{nil, {nats.Token("other")}, {nats.Token("")}, {nats.UserInfo("secret", "")}} {
			if nc, err := nats.Connect(url, opts...); err == nil {
				nc.Close()
				t.Errorf("%d options came in without the token", len(opts))
			}
		}
		dial(t, url, nats.Token("secret"))
		dial(t, "", nats.InProcessServer(s.InProcess()))
	})
	t.Run("bad addresses", func(t *testing.T) {
		t.Parallel()
		for _, listen := range []string{"127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "127.0.0.1:-1"} {
			if _, err := natsd.Start(natsd.Options{Dir: t.TempDir(), Listen: listen}); err == nil {
				t.Errorf("listen %q was taken", listen)
			}
		}
	})
	t.Run("no directory", func(t *testing.T) {
		t.Parallel()
		if _, err := natsd.Start(natsd.Options{}); err == nil {
			t.Error("started without a directory")
		}
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := natsd.Start(natsd.Options{Dir: file}); err == nil {
			t.Error("started in a file")
		}
	})
}

func TestAPortInUseIsAnErrorNotAnExit(t *testing.T) {
	t.Parallel()
	s := start(t, natsd.Options{Listen: "127.0.0.1:0"})
	begin := time.Now()
	_, err := natsd.Start(natsd.Options{Dir: t.TempDir(), Listen: s.Addr().String(), Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("Start = %v, want the port's fault", err)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("it took %v to tell", d)
	}
}
