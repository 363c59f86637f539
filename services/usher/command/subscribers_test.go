package command

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"usher.internal/libs/access"
	"usher.internal/libs/pgstore"
	"usher.internal/libs/testkit"
)

// desk is an operator at the command line of a cluster's database.
type desk struct {
	t        *testing.T
	dsn, key string
}

func newDesk(t *testing.T) desk {
	t.Helper()
	key := filepath.Join(t.TempDir(), "cluster.key")
	text := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, access.ClusterKeySize))
	if err := os.WriteFile(key, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return desk{t, testkit.DSN(t), key}
}

// run gives what a command answers with the standard input; it must end with this code.
func (d desk) run(want int, in string, args ...string) (out, errs string) {
	d.t.Helper()
	args = append(args, "--postgres", d.dsn)
	var o, e bytes.Buffer
	code := Main(d.t.Context(), args, App{Out: &o, Err: &e, In: strings.NewReader(in)})
	if code != want {
		d.t.Fatalf("usher %v = %d, want %d:\n%s%s", args, code, want, o.String(), e.String())
	}
	return o.String(), e.String()
}

func (d desk) says(text string, args ...string) {
	d.t.Helper()
	if out, errs := d.run(0, "", args...); !strings.Contains(out+errs, text) {
		d.t.Errorf("usher %v says\n%s%s, want %q", args, out, errs, text)
	}
}

func (d desk) refuses(text string, args ...string) {
	d.t.Helper()
	if _, errs := d.run(1, "", args...); !strings.Contains(errs, text) {
		d.t.Errorf("usher %v refuses with\n%s, want %q", args, errs, text)
	}
}

func TestUsersAndPackages(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.says("no packages", "packages", "list")
	d.says("package sport holds sport/*, news", "packages", "add", "sport", "--streams", "sport/*,news")
	d.refuses("already", "packages", "add", "sport", "--streams", "x")
	d.refuses("***", "packages", "set", "sport", "--streams", "x***")
	d.refuses("is no name", "packages", "add", "a b", "--streams", "x")

	out, errs := d.run(0, "", "users", "add", "anna", "--generate-token", "--packages", "sport", "--sessions", "2", "--until", "2099-12-31",
		"--name", "Anna", "--cluster-key", d.key)
	_, token, _ := strings.Cut(out, "token: ")
	if token = strings.TrimSpace(token); len(token) != 32 || !strings.Contains(errs, "shown once") {
		t.Errorf("users add says %q, %q, want a token", out, errs)
	}
	d.run(0, "s3cret-word\n", "users", "add", "berta", "--password-stdin", "--cluster-key", d.key)
	for _, bad := range [][]string{
		{"cluster's key", "users", "add", "carl", "--generate-token", "--data", t.TempDir()},
		{"already", "users", "add", "anna"},
		{"shorter ones", "users", "add", "carl", "--token", "short", "--cluster-key", d.key},
		{"no such package", "users", "add", "carl", "--packages", "films"},
		{"choose one", "users", "add", "carl", "--token", "token-of-carl", "--generate-token", "--cluster-key", d.key},
		{"--until", "users", "add", "carl", "--until", "soon"},
		{"is empty", "users", "add", "carl", "--password-stdin"},
		{"say what to change", "users", "set", "anna"},
		{"no such subscriber", "users", "set", "carl", "--sessions", "1"},
		{"no such subscriber", "users", "remove", "carl"},
		{"subscribers have this package", "packages", "remove", "sport"},
	} {
		d.refuses(bad[0], bad[1:]...)
	}
	d.says("login berta", "users", "list")
	d.says("2099-12-31", "users", "show", "anna")
	d.says("is changed", "users", "set", "anna", "--packages", "", "--no-token", "--until", "never", "--network", "10/8,192.0.2.1")
	d.says("0 of his sessions", "users", "set", "anna", "--blocked", "yes")
	d.says("blocked since", "users", "show", "anna")
	d.says("is removed", "packages", "remove", "sport")
	d.says("is removed", "users", "remove", "anna")
	out, _ = d.run(0, "", "users", "list", "--json")
	var rows []pgstore.SubscriberRow
	if err := json.Unmarshal([]byte(out), &rows); err != nil || len(rows) != 1 || rows[0].User != "berta" || !rows[0].HasPassword {
		t.Errorf("users list --json = %s, %v", out, err)
	}
	if strings.Contains(out, "argon2") || strings.Contains(out, "s3cret") {
		t.Errorf("a secret stands in %s", out)
	}
}

func TestUsersFile(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	file := filepath.Join(t.TempDir(), "users.csv")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("user,name,token,password,sessions,until,blocked,comment\n" +
		"anna,\"A, B\",token-of-anna,secret-of-anna,2,2030-12-31,,\"says \"\"hi\"\"\"\nberta,,token-of-anna,,,,,\n")
	d.refuses("nothing was imported", "users", "import", "csv", file, "--cluster-key", d.key)
	d.says("no subscribers", "users", "list")
	d.says("1 added, 0 changed, 0 as they were, 1 lines left out", "users", "import", "csv", file, "--cluster-key", d.key, "--skip-bad")
	d.says("0 added, 0 changed, 1 as they were, 1 lines left out", "users", "import", "csv", file, "--cluster-key", d.key, "--skip-bad")
	d.refuses("cluster's key", "users", "import", "csv", file, "--data", t.TempDir())
	exported, _ := d.run(0, "", "users", "export", "csv")
	want := "user,name,login,packages,sessions,until,ip,blocked,comment\n" +
		"anna,\"A, B\",anna,all,2,2031-01-01T00:00:00Z,,no,\"says \"\"hi\"\"\"\n"
	if exported != want {
		t.Errorf("export:\n%s\nwant\n%s", exported, want)
	}
	if out, _ := d.run(0, exported, "users", "import", "csv", "-", "--cluster-key", d.key); !strings.Contains(out, "0 added, 0 changed, 1 as they were") {
		t.Errorf("the export, imported: %s", out)
	}
	d.says("login anna", "users", "list")
	if _, errs := d.run(1, "", "users", "import", "csv", file, "--cluster-key", d.key); !strings.Contains(errs, file+":3: token: stands in line 2 already") ||
		strings.Contains(errs, "token-of-anna") {
		t.Errorf("bad lines are told as %s", errs)
	}
}

func TestUsersPlaylist(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.run(0, "", "packages", "add", "basic", "--streams", "news,sport/1,kids/*")
	d.run(0, "token-of-anna\n", "users", "add", "anna", "--packages", "basic", "--token-file", "-", "--cluster-key", d.key)
	d.refuses("--base", "users", "playlist", "anna", "--token", "token-of-anna", "--cluster-key", d.key)
	base := []string{"users", "playlist", "anna", "--base", "https://tv.example.com", "--cluster-key", d.key}
	d.refuses("only a fingerprint", base...)
	d.refuses("not anna's token", append(base, "--token", "token-of-berta")...)
	want := "#EXTM3U\n#EXTINF:-1,news\nhttps://tv.example.com/news/index.m3u8?token=token-of-anna\n" +
		"#EXTINF:-1,sport/1\nhttps://tv.example.com/sport/1/index.m3u8?token=token-of-anna\n"
	if out, _ := d.run(0, "token-of-anna", append(base, "--token-file", "-")...); out != want {
		t.Errorf("playlist:\n%s\nwant\n%s", out, want)
	}
	out, errs := d.run(0, "", append(base, "--generate-token")...)
	if strings.Count(out, "?token=") != 2 || strings.Contains(out, "token-of-anna") || !strings.Contains(errs, "new token") {
		t.Errorf("with a new token:\n%s%s", out, errs)
	}
	d.refuses("not anna's token", append(base, "--token", "token-of-anna")...)
	d.refuses("no such subscriber", "users", "playlist", "berta", "--base", "https://tv.example.com", "--token", "token-of-anna", "--cluster-key", d.key)
	d.refuses("url", "users", "playlist", "anna", "--base", "ftp://tv.example.com/{stream}", "--token", "token-of-anna", "--cluster-key", d.key)
}

func TestExplainKnowsSubscribers(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.run(0, "token-of-anna\n", "users", "add", "anna", "--token-file", "-", "--cluster-key", d.key)
	file := filepath.Join(t.TempDir(), "policy.yaml")
	policy := "version: 1\nnodes: {web1: {caller: nginx, from: [127.0.0.1], url: \"/hls/{stream}/**\"}}\n" +
		"checks: {own: {type: users}}\nstreams: [{match: \"**\", auth: own}]\n"
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	explain := []string{"explain", "--node", "web1", "--policy", file, "--data", filepath.Dir(d.key)}
	d.says("user anna", append(explain, "--url", "/hls/news/index.m3u8?token=token-of-anna")...)
	d.says("no subscriber of realm main has this token", append(explain, "--url", "/hls/news/index.m3u8?token=token-of-berta")...)
}
