package natsd

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"strconv"

	"github.com/nats-io/nats-server/v2/server"
)

// admit sets where the server listens and who may come in.
func admit(opts *server.Options, o Options) error {
	if o.Listen == "" {
		return nil
	}
	host, port, err := splitListen(o.Listen)
	if err != nil {
		return err
	}
	if o.Cert != "" || o.Key != "" || o.CA != "" {
		opts.TLSConfig, err = server.GenTLSConfig(&server.TLSConfigOpts{
			CertFile: o.Cert, KeyFile: o.Key, CaFile: o.CA, Verify: o.CA != "",
		})
		if err != nil {
			return fmt.Errorf("TLS of embedded nats-server: %w", err)
		}
		opts.TLS = true
		opts.TLSVerify = o.CA != ""
	}
	if o.Token == "" && !opts.TLSVerify && !loopback(host) {
		return fmt.Errorf("%w (listen %s)", ErrOpen, o.Listen)
	}
	if o.Token != "" {
		opts.CustomClientAuthentication = doorman(sha256.Sum256([]byte(o.Token)))
	}
	opts.DontListen, opts.Host, opts.Port = false, host, port
	return nil
}

func splitListen(addr string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("listen address %q: %w", addr, err)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("listen address %q: port %q", addr, p)
	}
	if n == 0 {
		return host, server.RANDOM_PORT, nil
	}
	return host, int(n), nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// doorman is the hash of the token that clients must show, unless they come through
// the in-process pipe: whoever holds that already runs inside the server.
type doorman [sha256.Size]byte

// Check implements server.Authentication.
func (d doorman) Check(c server.ClientAuthentication) bool {
	if a := c.RemoteAddress(); a != nil && a.Network() == "pipe" {
		return true
	}
	got := sha256.Sum256([]byte(c.GetOpts().Token))
	return subtle.ConstantTimeCompare(got[:], d[:]) == 1
}
