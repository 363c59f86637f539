package config

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// Prefix is a network as operators write it: "10.2.0.5", "10.1.0.0/16",
// "2001:db8::/32", and short IPv4 prefixes whose missing bytes are 0 as in
// Flussonic ("172.16/24" is 172.16.0.0/24). Bits below the prefix are cleared.
type Prefix struct{ netip.Prefix }

var errPrefix = errors.New("want an address or a prefix, such as 10.2.0.5, 10.1.0.0/16, 172.16/24 or 2001:db8::/32")

// ParsePrefix reads what Prefix describes. IPv4 in IPv6 comes out as IPv4.
func ParsePrefix(text string) (netip.Prefix, error) {
	address, bits, slash := strings.Cut(text, "/")
	if dots := strings.Count(address, "."); slash && dots < 3 && !strings.Contains(address, ":") {
		address += strings.Repeat(".0", 3-dots)
	}
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Zone() != "" {
		return netip.Prefix{}, errPrefix
	}
	n := ip.BitLen()
	if slash {
		// Atoi alone would take "+8" and "08".
		if n, err = strconv.Atoi(bits); err != nil || strconv.Itoa(n) != bits || n > ip.BitLen() {
			return netip.Prefix{}, errPrefix
		}
	}
	if ip.Is4In6() {
		if n < 96 {
			return netip.Prefix{}, errPrefix
		}
		ip, n = ip.Unmap(), n-96
	}
	p, err := ip.Prefix(n)
	if err != nil {
		return netip.Prefix{}, errPrefix
	}
	return p, nil
}

// UnmarshalText reads what ParsePrefix reads.
func (p *Prefix) UnmarshalText(text []byte) error {
	v, err := ParsePrefix(string(text))
	if err != nil {
		return err
	}
	p.Prefix = v
	return nil
}
