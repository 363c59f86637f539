package testkit

import (
	"net"
	"os"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

// Place is what a database knows of a network.
type Place struct {
	Country string
	ASN     uint32
	Org     string
}

// Geo writes a country database of MaxMind's format: a country's code for each network.
func Geo(t testing.TB, path string, countries map[string]string) {
	t.Helper()
	places := map[string]Place{}
	for cidr, code := range countries {
		places[cidr] = Place{Country: code}
	}
	Places(t, path, places)
}

// Places writes a database of MaxMind's format: country and operator of each network.
func Places(t testing.TB, path string, places map[string]Place) {
	t.Helper()
	w, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Country", IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	for cidr, p := range places {
		_, network, err := net.ParseCIDR(cidr)
		if err != nil {
			t.Fatal(err)
		}
		record := mmdbtype.Map{
			"country":                        mmdbtype.Map{"iso_code": mmdbtype.String(p.Country)},
			"autonomous_system_number":       mmdbtype.Uint32(p.ASN),
			"autonomous_system_organization": mmdbtype.String(p.Org),
		}
		if err := w.Insert(network, record); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.WriteTo(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		t.Fatal(err)
	}
}
