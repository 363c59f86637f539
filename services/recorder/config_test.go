package recorder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"usher.internal/libs/config"
)

const goodConfig = `
name: r1
region: eu
admin: 127.0.0.1:0
nats: {url: "nats://127.0.0.1:1"}
postgres: file:%[1]s/dsn
replicas: 3
`

// write makes a directory with a configuration and the file that it names.
func write(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if strings.Contains(text, "%") {
		text = fmt.Sprintf(text, dir)
	}
	for name, content := range map[string]string{
		"recorder.yaml": text,
		"dsn":           "postgres://nobody@127.0.0.1:1/usher?connect_timeout=1",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "recorder.yaml")
}

func TestLoadReadsAFile(t *testing.T) {
	t.Parallel()
	c, err := Load(write(t, goodConfig))
	if err != nil || c.Name != "r1" || c.Replicas != 3 || c.Postgres.IsZero() {
		t.Fatalf("Load = %+v, %v", c, err)
	}
	if b, err := c.busConfig(); err != nil || b.URL != "nats://127.0.0.1:1" || b.Name != "r1" {
		t.Errorf("bus = %+v, %v", b, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown key":        {"replicas: 3", "replicsa: 3", `did you mean "replicas"`},
		"too many replicas":  {"replicas: 3", "replicas: 6", "replicas"},
		"name with a dot":    {"name: r1", "name: r.1", "name"},
		"no region":          {"region: eu\n", "", "region"},
		"no bus":             {`nats: {url: "nats://127.0.0.1:1"}`, "", "nats"},
		"no database":        {"postgres: file:%[1]s/dsn\n", "", "postgres"},
		"half a certificate": {`"nats://127.0.0.1:1"`, `"nats://127.0.0.1:1", key: /k.pem`, "nats"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(goodConfig, c.old, c.new, 1)
			if text == goodConfig {
				t.Fatal("nothing was changed")
			}
			_, err := Load(write(t, text))
			var problems config.Problems
			if !errors.As(err, &problems) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Load = %v, want problems about %q", err, c.want)
			}
		})
	}
}

// A recorder starts, and stops, also while neither NATS nor Postgres can be reached.
func TestMainNeedsNobody(t *testing.T) {
	t.Parallel()
	cfg, err := Load(write(t, goodConfig))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := Main(ctx, cfg, "test"); err != nil {
		t.Errorf("Main: %v", err)
	}
}
