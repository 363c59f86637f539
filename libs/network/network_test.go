package network_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"usher.internal/libs/network"
)

func TestParse(t *testing.T) {
	t.Parallel()
	prefixes, bad := network.Parse([]byte("# VPN\n10.0.0.0/8\n 172.16/24 # short\r\n\n10.0.0.300\nsecret-token\n2001:db8::/32\n::ffff:192.0.2.1"))
	want := []string{"10.0.0.0/8", "172.16.0.0/24", "2001:db8::/32", "192.0.2.1/32"}
	if got := strings.Fields(strings.Trim(fmt.Sprint(prefixes), "[]")); !slices.Equal(got, want) {
		t.Errorf("Parse = %v, want %v", got, want)
	}
	if !slices.Equal(bad, []int{5, 6}) {
		t.Errorf("bad lines %v, want 5 and 6", bad)
	}
	if _, bad := network.Parse([]byte("10.0.0.1\n" + strings.Repeat("x", 10_000) + "\n10.0.0.2")); !slices.Equal(bad, []int{2}) {
		t.Errorf("bad lines %v, want 2", bad)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	l := network.NewList([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")})
	for ip, want := range map[string]bool{"10.255.0.1": true, "11.0.0.1": false, "2001:db8::1": true, "2001:db9::1": false} {
		if got := l.Contains(netip.MustParseAddr(ip)); got != want {
			t.Errorf("Contains(%s) = %v, want %v", ip, got, want)
		}
	}
	if l.Contains(netip.Addr{}) || network.NewList(nil).Contains(netip.MustParseAddr("10.0.0.1")) {
		t.Error("no address, or an empty list, is contained")
	}
}

// write replaces a file and makes sure that its time differs.
func write(t *testing.T, path, text string, age time.Duration) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
		t.Fatal(err)
	}
}

func TestFilesFollowChanges(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	files := network.NewFiles(slog.New(slog.NewTextHandler(&log, nil)))
	path := filepath.Join(t.TempDir(), "vpn.txt")
	if _, err := files.Open(path); err == nil {
		t.Fatal("a file that was never there is opened")
	}
	write(t, path, "10.0.0.0/8\nnonsense\n", time.Hour)
	l, err := files.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "lines=[2]") || strings.Contains(log.String(), "nonsense") {
		t.Errorf("log %q, want the number of the bad line and not its text", &log)
	}
	again, err := files.Open(path)
	if err != nil || again != l {
		t.Errorf("Open again = %p, %v, want the same list %p", again, err, l)
	}
	ten, eleven := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("11.0.0.1")
	write(t, path, "11.0.0.0/8\n", 0)
	files.Poll(t.Context())
	if l.Contains(ten) || !l.Contains(eleven) {
		t.Error("the changed file was not read")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	log.Reset()
	files.Poll(t.Context())
	files.Poll(t.Context())
	if !l.Contains(eleven) || strings.Count(log.String(), "its last content stays") != 1 {
		t.Errorf("a vanished file: kept %v, log %q, want it kept and one warning", l.Contains(eleven), &log)
	}
	write(t, path, "10.0.0.0/8\n", time.Minute)
	files.Poll(t.Context())
	if !l.Contains(ten) || l.Contains(eleven) {
		t.Error("the file that came back was not read")
	}
	if err := os.Truncate(path, network.MaxFile+1); err != nil {
		t.Fatal(err)
	}
	files.Poll(t.Context())
	if !l.Contains(ten) {
		t.Error("a file that is too long took the content away")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("10.0.0.0/8 # office\n172.16/24\n2001:db8::/32\r\n::ffff:10.0.0.1/104\n"))
	f.Add([]byte("10.0.0.0/33\n/8\n10/8/8\n\x00\xff"))
	f.Fuzz(func(t *testing.T, text []byte) {
		prefixes, bad := network.Parse(text)
		l := network.NewList(prefixes)
		for _, p := range prefixes {
			if !p.IsValid() || p.Masked() != p || !l.Contains(p.Addr()) {
				t.Errorf("prefix %v is not in its list", p)
			}
		}
		if !slices.IsSorted(bad) {
			t.Errorf("bad lines %v are not in order", bad)
		}
	})
}

func BenchmarkContains(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{10, 1000, 100_000} {
		prefixes := make([]netip.Prefix, n)
		for i := range prefixes {
			v := random.Uint32()
			ip := netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
			prefixes[i] = netip.PrefixFrom(ip, 16+random.IntN(17)).Masked()
		}
		l := network.NewList(prefixes)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			i := 0
			for b.Loop() {
				l.Contains(prefixes[i%n].Addr())
				i++
			}
		})
	}
}
