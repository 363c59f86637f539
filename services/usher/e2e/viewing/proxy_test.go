package viewing_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The documents that tell an operator what to type into his nginx.
const (
	projectREADME     = "../../../../README.md"
	forwardauthREADME = "../../../edge/internal/caller/forwardauth/README.md"
)

// What stands in their snippets for the edge, and where nginx is told to listen.
var (
	edgeAddress = regexp.MustCompile(`server [^ ;]+:\d+;`)
	listenPort  = regexp.MustCompile(`listen \d+;`)
)

// media is a small HLS presentation: a master playlist, two renditions, segments.
var media = map[string]string{
	"index.m3u8":      "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=800000\n480p/index.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2500000\n720p/index.m3u8\n",
	"480p/index.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nseg1.ts\n#EXTINF:2,\nseg2.ts\n#EXTINF:2,\nseg3.ts\n",
	"720p/index.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nseg1.ts\n#EXTINF:2,\nseg2.ts\n#EXTINF:2,\nseg3.ts\n",
	"480p/seg1.ts":    "480p one", "480p/seg2.ts": "480p two", "480p/seg3.ts": "480p three",
	"720p/seg1.ts": "720p one", "720p/seg2.ts": "720p two", "720p/seg3.ts": "720p three",
}

// startNginx runs Debian's nginx with the document's snippet, word for word but for addresses and
// the folder of the files, before the streams, and returns its URL.
func startNginx(t *testing.T, document, edge string, streams ...string) string {
	t.Helper()
	bin, err := exec.LookPath("nginx")
	if err != nil {
		bin = "/usr/sbin/nginx"
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("nginx is missing, this test needs a real one: scripts/install nginx (%v)", err)
	}
	text, err := os.ReadFile(document)
	must(t, err)
	_, snippet, ok := strings.Cut(string(text), "```nginx\n")
	if !ok {
		t.Fatalf("%s has no nginx snippet", document)
	}
	snippet, _, _ = strings.Cut(snippet, "```")
	dir := t.TempDir()
	for _, stream := range streams {
		for name, content := range media {
			file := filepath.Join(dir, "hls", stream, name)
			must(t, os.MkdirAll(filepath.Dir(file), 0o755))
			must(t, os.WriteFile(file, []byte(content), 0o644))
		}
	}
	addr := freeAddress(t)
	snippet = edgeAddress.ReplaceAllString(snippet, "server "+strings.TrimPrefix(edge, "http://")+";")
	snippet = listenPort.ReplaceAllString(snippet, "listen "+addr+";")
	snippet = strings.ReplaceAll(snippet, "/srv/media", dir)
	serve(t, bin, dir, snippet)
	deadline := time.Now().Add(patience)
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
			return "http://" + addr
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx does not listen: %v", err)
		}
	}
}

// serve runs nginx as an ordinary child, all of whose files are in dir, until the test ends.
func serve(t *testing.T, bin, dir, servers string) {
	t.Helper()
	// Started by root, its workers would lose the right to read the test's directory.
	conf := fmt.Sprintf("daemon off;\nuser root;\npid %[1]s/pid;\nevents {}\nhttp {\naccess_log off;\n"+
		"client_body_temp_path %[1]s/b;\nproxy_temp_path %[1]s/p;\nfastcgi_temp_path %[1]s/f;\n"+
		"uwsgi_temp_path %[1]s/u;\nscgi_temp_path %[1]s/s;\n%[2]s}\n", dir, servers)
	file := filepath.Join(dir, "nginx.conf")
	must(t, os.WriteFile(file, []byte(conf), 0o644))
	cmd := exec.Command(bin, "-e", filepath.Join(dir, "error.log"), "-p", dir, "-c", file)
	// It ends with this process, however that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended, and then says why
		_ = cmd.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			t.Logf("nginx says: %s%s", said.String(), log)
		}
	})
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }() // nothing came through it
	return l.Addr().String()
}
