package edge

import (
	"net"
	"syscall"
)

// turnAway makes the kernel drop every new attempt to connect to l, while what has connected
// already can still be accepted. Closing a listener would reset those that wait in
// its queue, and with them questions that were sent. Callers that are turned away try again
// a second later, and find whoever listens then, or nobody.
func turnAway(l net.Listener) error {
	socket, ok := l.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	const flags, syn = 13, 0x02 // of the TCP header
	filter := []syscall.SockFilter{
		{Code: syscall.BPF_LD | syscall.BPF_B | syscall.BPF_ABS, K: flags},
		{Code: syscall.BPF_JMP | syscall.BPF_JSET | syscall.BPF_K, Jt: 0, Jf: 1, K: syn},
		{Code: syscall.BPF_RET | syscall.BPF_K, K: 0},
		{Code: syscall.BPF_RET | syscall.BPF_K, K: 1 << 18},
	}
	cerr := raw.Control(func(fd uintptr) { err = syscall.AttachLsf(int(fd), filter) }) //nolint:staticcheck // x/net/bpf would bring a dependency for four lines
	if cerr != nil {
		return cerr
	}
	return err
}
