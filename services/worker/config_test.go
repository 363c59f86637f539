package worker

import (
	"context"
	"encoding/base64"
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
name: w1
region: eu
admin: 127.0.0.1:0
nats: {url: "nats://127.0.0.1:1"}
postgres: file:%[1]s/dsn
cluster_key: %[1]s/key
pool: 16
geoip: [%[1]s/geoip]
`

// write makes a directory with a configuration and the files that it names.
func write(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if strings.Contains(text, "%") {
		text = fmt.Sprintf(text, dir)
	}
	for name, content := range map[string]string{
		"worker.yaml": text,
		"dsn":         "postgres://nobody@127.0.0.1:1/usher?connect_timeout=1",
		"key":         base64.StdEncoding.EncodeToString(make([]byte, 32)),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "worker.yaml")
}

func TestLoadReadsAFile(t *testing.T) {
	t.Parallel()
	c, err := Load(write(t, goodConfig))
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	if c.Name != "w1" || c.Pool != 16 || len(c.GeoIP) != 1 || c.filled().Queue != 32 || c.filled().Pool != 16 || c.Postgres.IsZero() {
		t.Errorf("config = %+v", c)
	}
	b, err := c.busConfig()
	if err != nil || b.URL != "nats://127.0.0.1:1" || b.Name != "w1" {
		t.Errorf("bus = %+v, %v", b, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown key":         {"pool: 16", "pol: 16", `did you mean "pool"`},
		"name with a dot":     {"name: w1", "name: w.1", "name"},
		"no region":           {"region: eu\n", "", "region"},
		"no bus":              {`nats: {url: "nats://127.0.0.1:1"}`, "", "nats"},
		"the secret itself":   {"postgres: file:%[1]s/dsn", "postgres: postgres://u:hunter2@h/db", "postgres"},
		"no key":              {"cluster_key: %[1]s/key", "", "cluster_key"},
		"half a certificate":  {`"nats://127.0.0.1:1"`, `"nats://127.0.0.1:1", cert: /c.pem`, "nats"},
		"negative pool":       {"pool: 16", "pool: -1", "pool"},
		"not YAML":            {"pool: 16", "\tpool", "YAML"},
		"duration for a pool": {"pool: 16", "pool: 5s", "pool"},
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
			if strings.Contains(fmt.Sprint(err), "hunter2") {
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Load of no file = %v", err)
	}
}

// A worker starts, and stops, also while neither NATS nor Postgres can be reached.
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
