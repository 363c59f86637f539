package geo_test

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"usher.internal/libs/geo"
)

// database is a file's content: a record for each network.
func database(t testing.TB, built time.Time, records map[string]mmdbtype.Map) []byte {
	t.Helper()
	w, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "test", BuildEpoch: built.Unix(), IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	for cidr, record := range records {
		_, network, err := net.ParseCIDR(cidr)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Insert(network, record); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func write(t testing.TB, path string, content []byte, age time.Duration) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
		t.Fatal(err)
	}
}

var (
	old   = time.Unix(1_600_000_000, 0)
	newer = time.Unix(1_700_000_000, 0)
	iso   = func(code string) mmdbtype.Map {
		return mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(code), "names": mmdbtype.Map{"en": mmdbtype.String("x")}}}
	}
	flat = func(code string) mmdbtype.Map { return mmdbtype.Map{"country_code": mmdbtype.String(code)} }
	as   = func(n uint32, org string) mmdbtype.Map {
		return mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(n), "autonomous_system_organization": mmdbtype.String(org)}
	}
)

func TestLookupMergesTheForms(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b, c := filepath.Join(dir, "a.mmdb"), filepath.Join(dir, "b.mmdb"), filepath.Join(dir, "c.mmdb")
	write(t, a, database(t, newer, map[string]mmdbtype.Map{"1.0.0.0/8": iso("DE"), "2001:db8::/32": iso("fr")}), time.Hour)
	write(t, b, database(t, old, map[string]mmdbtype.Map{"1.2.0.0/16": flat("AT"), "2.0.0.0/8": flat("GB"), "3.0.0.0/8": flat("nowhere")}), time.Hour)
	write(t, c, database(t, newer, map[string]mmdbtype.Map{"1.2.0.0/16": as(64500, "Example Net")}), time.Hour)
	d := geo.Open(t.Context(), []string{a, b, c}, slog.New(slog.DiscardHandler))
	for ip, want := range map[string]geo.Place{
		"1.1.1.1":     {Country: "DE"},
		"1.2.3.4":     {Country: "DE", ASN: 64500, Org: "Example Net"},
		"2.1.1.1":     {Country: "GB"},
		"3.1.1.1":     {},
		"9.9.9.9":     {},
		"2001:db8::1": {Country: "FR"},
	} {
		if got := d.Lookup(netip.MustParseAddr(ip)); got != want {
			t.Errorf("Lookup(%s) = %+v, want %+v", ip, got, want)
		}
	}
	if got := d.Lookup(netip.Addr{}); got != (geo.Place{}) {
		t.Errorf("no address is in %+v", got)
	}
	if d.Databases() != 3 || !d.Built().Equal(old) {
		t.Errorf("%d databases, the oldest of %v; want 3, %v", d.Databases(), d.Built(), old)
	}
}

func TestFilesAreReadAgain(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	path := filepath.Join(t.TempDir(), "country.mmdb")
	d := geo.Open(t.Context(), []string{path}, slog.New(slog.NewTextHandler(&log, nil)))
	ip := netip.MustParseAddr("1.1.1.1")
	expect := func(what, country string, databases int) {
		t.Helper()
		d.Poll(t.Context())
		if got := d.Lookup(ip).Country; got != country || d.Databases() != databases {
			t.Errorf("%s: country %q of %d databases, want %q of %d", what, got, d.Databases(), country, databases)
		}
	}
	expect("no file", "", 0)
	if !d.Built().IsZero() || strings.Count(log.String(), "cannot be read") != 1 {
		t.Errorf("built %v, log %q; want one line", d.Built(), &log)
	}
	write(t, path, database(t, old, map[string]mmdbtype.Map{"1.0.0.0/8": iso("DE")}), 3*time.Hour)
	expect("the file comes", "DE", 1)
	write(t, path, []byte("half of a datab"), 2*time.Hour)
	expect("a broken file", "DE", 1)
	write(t, path, database(t, newer, map[string]mmdbtype.Map{"1.0.0.0/8": iso("FR")}), time.Hour)
	expect("a new file", "FR", 1)
	if !d.Built().Equal(newer) {
		t.Errorf("built %v, want %v", d.Built(), newer)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect("the file goes", "FR", 1)
}

func TestADirectoryStandsForItsFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "geoip")
	d := geo.Open(t.Context(), []string{dir}, slog.New(slog.DiscardHandler))
	if d.Databases() != 0 {
		t.Errorf("%d databases in a directory that is not there", d.Databases())
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "b.mmdb"), database(t, newer, map[string]mmdbtype.Map{"1.0.0.0/8": iso("FR")}), time.Hour)
	write(t, filepath.Join(dir, "a.mmdb"), database(t, newer, map[string]mmdbtype.Map{"1.0.0.0/16": iso("DE")}), time.Hour)
	write(t, filepath.Join(dir, "LICENSE"), []byte("text"), time.Hour)
	d.Poll(t.Context())
	expect := func(ip, want string) {
		t.Helper()
		if got := d.Lookup(netip.MustParseAddr(ip)).Country; got != want || d.Databases() != 2 {
			t.Errorf("Lookup(%s) = %q of %d databases, want %q of 2", ip, got, d.Databases(), want)
		}
	}
	expect("1.0.0.1", "DE")
	expect("1.1.0.1", "FR")
	if err := os.Remove(filepath.Join(dir, "a.mmdb")); err != nil {
		t.Fatal(err)
	}
	d.Poll(t.Context())
	expect("1.1.0.1", "FR")
}

// Whatever a file holds, it costs an error and not the process.
func FuzzLookup(f *testing.F) {
	good := database(f, old, map[string]mmdbtype.Map{"1.0.0.0/8": iso("DE"), "2.0.0.0/8": as(1, "x")})
	f.Add(good, []byte{1, 1, 1, 1})
	f.Add(good[:len(good)/2], []byte{1, 1, 1, 1})
	quiet := slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, content, ip []byte) {
		path := filepath.Join(t.TempDir(), "x.mmdb")
		write(t, path, content, time.Hour)
		d := geo.Open(t.Context(), []string{path}, quiet)
		addr, _ := netip.AddrFromSlice(ip)
		if p := d.Lookup(addr); p.Country != "" && len(p.Country) != 2 {
			t.Errorf("Lookup = %+v", p)
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	path := filepath.Join(b.TempDir(), "x.mmdb")
	write(b, path, database(b, old, map[string]mmdbtype.Map{"1.0.0.0/8": iso("DE"), "1.2.0.0/16": as(1, "x")}), time.Hour)
	d := geo.Open(b.Context(), []string{path}, slog.New(slog.DiscardHandler))
	ip := netip.MustParseAddr("1.2.3.4")
	for b.Loop() {
		d.Lookup(ip)
	}
}
