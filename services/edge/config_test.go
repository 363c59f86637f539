package edge

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLoadConfig(t *testing.T) {
	t.Parallel()
	const good = "name: e1\nregion: eu\nhttp: :8480\nadmin: 127.0.0.1:9480\ncluster_key: /etc/usher/cluster.key\nnats: {url: \"nats://n:4222\", creds: /c}\n"
	cases := map[string]struct{ text, want string }{
		"all that is needed": {good, ""},
		"unknown key":        {good + "lisen: x\n", "unknown key"},
		"a name with a dot":  {strings.Replace(good, "e1", "e.1", 1), "edge name"},
		"no address":         {strings.Replace(good, ":8480", "nowhere", 1), "http: want host:port"},
		"no NATS":            {strings.Replace(good, "url: \"nats://n:4222\", ", "", 1), "nats: url is missing"},
		"no key":             {strings.Replace(good, "cluster_key: /etc/usher/cluster.key\n", "", 1), "cluster_key is missing"},
		"negative":           {good + "sessions: -1\n", "sessions must not be negative"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "edge.yaml")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadConfig(file)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("LoadConfig: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("LoadConfig = %v, want %q in it", err, c.want)
			}
		})
	}
}
