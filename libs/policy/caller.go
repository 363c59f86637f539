package policy

import (
	"slices"
	"time"
)

// caller is what a kind of streaming server brings along.
type caller struct {
	name   string
	budget time.Duration
	// hold of callers that ask once and show no life afterwards.
	hold time.Duration
	// forward: asked for every HTTP request of a viewer (auth_request and its kin).
	forward bool
	// rechecks: asks again when the lease that it was told is over.
	rechecks bool
	// control: it lists its sessions and ends them, where it is asked to.
	control bool
}

// The values that a segments key and the session_keys list may take.
const (
	segmentsDevice = "device"
	segmentsToken  = "token"
)

func callers() []caller {
	return []caller{
		{name: "astra", budget: 800 * time.Millisecond, hold: 6 * time.Hour, control: true},
		{name: "flussonic", budget: 2500 * time.Millisecond, rechecks: true, control: true},
		{name: "nginx", budget: 2 * time.Second, forward: true},
		{name: "caddy", budget: 2 * time.Second, forward: true},
		{name: "traefik", budget: 2 * time.Second, forward: true},
	}
}

func callerNames() []string {
	var names []string
	for _, c := range callers() {
		names = append(names, c.name)
	}
	return names
}

func findCaller(name string) (caller, bool) {
	all := callers()
	i := slices.IndexFunc(all, func(c caller) bool { return c.name == name })
	if i < 0 {
		return caller{}, false
	}
	return all[i], true
}
