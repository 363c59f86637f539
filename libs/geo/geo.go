// Package geo finds country and network operator of an address in databases of MaxMind's
// format: GeoLite2 and GeoIP2 (country, city, ASN), those of ip-location-db, DB-IP and
// others of the same form. Files are read again when they change.
package geo

import (
	"net/netip"
	"strings"

	"github.com/oschwald/maxminddb-golang/v2"
)

// Place is what databases know of an address. Its zero value is an unknown place.
type Place struct {
	Country string // ISO 3166 code in upper case, "" if unknown
	ASN     uint32 // number of the autonomous system, 0 if unknown
	Org     string // whose system that is
}

// merge fills in what p does not know.
func (p *Place) merge(o Place) {
	if p.Country == "" {
		p.Country = o.Country
	}
	if p.ASN == 0 {
		p.ASN, p.Org = o.ASN, o.Org
	}
}

// complete says that nothing is left to look up.
func (p *Place) complete() bool { return p.Country != "" && p.ASN != 0 }

// record is one entry of a database, in the forms that occur.
type record struct {
	// GeoLite2, GeoIP2, DB-IP.
	Country struct {
		ISOCode string `maxminddb:"iso_code"`
	} `maxminddb:"country"`
	// ip-location-db.
	CountryCode string `maxminddb:"country_code"`
	ASN         uint32 `maxminddb:"autonomous_system_number"`
	Org         string `maxminddb:"autonomous_system_organization"`
}

// place takes from the record what is believed.
func (r *record) place() Place {
	code := r.Country.ISOCode
	if code == "" {
		code = r.CountryCode
	}
	if len(code) != 2 {
		code = ""
	}
	return Place{Country: strings.ToUpper(code), ASN: r.ASN, Org: r.Org}
}

// database is one file's content.
type database struct{ reader *maxminddb.Reader }

// parse opens a database held in memory: a file that is mapped and then cut short by
// whoever replaces it would end the process.
func parse(content []byte) (*database, error) {
	r, err := maxminddb.OpenBytes(content)
	if err != nil {
		return nil, err
	}
	return &database{reader: r}, nil
}

// find looks an address up; what cannot be read is unknown.
func (d *database) find(ip netip.Addr) Place {
	var r record
	if err := d.reader.Lookup(ip).Decode(&r); err != nil {
		return Place{}
	}
	return r.place()
}
