//go:build !linux

package edge

import "net"

// turnAway does nothing where the kernel has no socket filters: connections that wait to be
// accepted are reset when the listener closes.
func turnAway(net.Listener) error { return nil }
