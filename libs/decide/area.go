package decide

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"usher.internal/libs/network"
	"usher.internal/libs/policy"
)

// area is where an address may be: any of these lists.
type area []*network.List

// contains says whether ip is in one of the lists.
func (a area) contains(ip netip.Addr) bool {
	return slices.ContainsFunc(a, func(l *network.List) bool { return l.Contains(ip) })
}

// openNetworks makes the policy's networks ready. The errors name those whose file was
// never read: a list that is not known can stand neither for "in it" nor for "not in it".
func (e *Engine) openNetworks() []error {
	e.networks = make(map[string]*network.List, len(e.snapshot.Networks))
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(e.snapshot.Networks)) {
		n := e.snapshot.Networks[name]
		if n.File == "" {
			e.networks[name] = network.NewList(n.Prefixes)
			continue
		}
		list, err := e.deps.Networks.Open(n.File)
		if err != nil {
			errs = append(errs, fmt.Errorf("networks.%s: %w", name, err))
			continue
		}
		e.networks[name] = list
	}
	return errs
}

// area is the one look-up of networks for lists, checks and clients; nil for none.
func (e *Engine) area(n *policy.Networks) area {
	var a area
	if len(n.Prefixes) > 0 {
		a = append(a, network.NewList(n.Prefixes))
	}
	for _, name := range n.Names {
		if l := e.networks[name]; l != nil {
			a = append(a, l)
		}
	}
	return a
}
