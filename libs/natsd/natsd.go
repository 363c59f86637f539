// Package natsd runs nats-server inside the process: JetStream in a directory of
// its own, locked against a second process, reached without a socket from inside
// and, where an address is given, over TCP by workers and edges on other machines.
//
// Production clusters run nats-server in processes of their own, since the embedded
// one shares this process's heap and scheduler; `usher up` and the tests use this one.
package natsd

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Defaults of the JetStream limits. Without them the server takes 75 % of the memory
// and most of the free disk.
const (
	DefaultMaxMemory = 256 << 20
	DefaultMaxStore  = 10 << 30
)

const (
	readyTimeout = 10 * time.Second
	readyPoll    = 100 * time.Millisecond
	// The server side notices a dead client after pingInterval*pingsOut.
	pingInterval = 5 * time.Second
	pingsOut     = 2
	lockName     = "natsd.lock"
)

var (
	// ErrLocked means that another process (or another Server) has the directory open.
	ErrLocked = errors.New("directory is used by another server")
	// ErrOpen means that Listen names an address that other machines can reach,
	// while neither Token nor TLS says who may come in.
	ErrOpen = errors.New("listening beyond loopback needs a token or TLS with a CA")
	// ErrStopped is what Failed delivers when the server went down without Stop.
	ErrStopped = errors.New("embedded nats-server stopped")
)

// Options of an embedded server.
type Options struct {
	// Dir holds JetStream's files and the lock. It is made if missing.
	Dir string
	// Name of the server, unique in a cluster; "usher" if empty.
	Name string
	// Domain is the JetStream domain (one per region), "" for none.
	Domain string
	// Listen is the TCP address "host:port" for other processes; port 0 takes a
	// free one. Empty: no socket, only Server.InProcess.
	Listen string
	// Token that TCP clients must show; in-process clients need none. Required,
	// or TLS with a CA, unless Listen is a loopback address.
	Token string
	// Cert and Key are files that turn TLS on for TCP clients; with CA only clients
	// with a certificate signed by it are let in.
	Cert, Key, CA string
	// SyncAlways makes every acknowledged JetStream write durable against power loss
	// (one fsync each), not only against the death of the process.
	SyncAlways bool
	// MaxMemory and MaxStore limit JetStream in bytes; 0 takes the defaults.
	MaxMemory, MaxStore int64
	// Log gets the server's own lines; nil discards them.
	Log *slog.Logger
}

// Server is a running embedded server. Its methods may be called from any goroutine.
type Server struct {
	ns     *server.Server
	lock   *os.File
	log    *slog.Logger
	failed chan error

	stop     sync.Once
	stopping chan struct{} // closed when Stop begins
	stopped  chan struct{} // closed when everything is released
}

// Start locks the directory, starts the server and returns once it accepts
// connections and JetStream is up. Errors are ErrLocked, ErrOpen or the server's own.
func Start(o Options) (*Server, error) {
	opts, err := serverOptions(o)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		lock: lock, log: log, failed: make(chan error, 1),
		stopping: make(chan struct{}), stopped: make(chan struct{}),
	}
	if s.ns, err = server.NewServer(opts); err != nil {
		_ = lock.Close() // the first error is the one to tell
		return nil, fmt.Errorf("configuring embedded nats-server: %w", err)
	}
	s.ns.SetLoggerV2(logger{log: log, fatal: s.fail}, false, false, false)
	s.ns.Start()
	if err := s.waitReady(); err != nil {
		s.Stop()
		return nil, err
	}
	go s.watch()
	return s, nil
}

// waitReady returns as soon as the server is ready or has failed: it doesn't end the
// process on a port in use, as the stand-alone one would, and would keep us waiting.
func (s *Server) waitReady() error {
	for deadline := time.Now().Add(readyTimeout); time.Now().Before(deadline); {
		ready := s.ns.ReadyForConnections(readyPoll)
		select {
		case err := <-s.failed:
			return fmt.Errorf("starting embedded nats-server: %w", err)
		default:
		}
		if !ready {
			continue
		}
		if !s.ns.JetStreamEnabled() {
			return errors.New("embedded nats-server runs without JetStream")
		}
		return nil
	}
	return fmt.Errorf("embedded nats-server is not ready after %v", readyTimeout)
}

// watch reports a server that went down by itself. It ends with the server.
func (s *Server) watch() {
	s.ns.WaitForShutdown()
	select {
	case <-s.stopping:
	default:
		s.fail(ErrStopped)
	}
}

func (s *Server) fail(err error) {
	select {
	case s.failed <- err:
	default: // the first failure is the one that counts
	}
}

// ClientURL is where TCP clients connect; "" when the server doesn't listen.
func (s *Server) ClientURL() string {
	if s.ns.Addr() == nil {
		return ""
	}
	return s.ns.ClientURL()
}

// Addr is the TCP address that clients reach, nil when the server doesn't listen.
func (s *Server) Addr() net.Addr { return s.ns.Addr() }

// InProcess makes connections without a socket. It fits bus.Config.InProcess.
func (s *Server) InProcess() *InProcess { return &InProcess{ns: s.ns} }

// Failed delivers one error when the server cannot go on; the owner should stop.
func (s *Server) Failed() <-chan error { return s.failed }

// Stop shuts the server down, waits until its files are closed and releases the
// directory. It may be called more than once; every call waits. Clients should be
// drained before: the server cuts them off.
func (s *Server) Stop() {
	s.stop.Do(func() {
		close(s.stopping)
		s.ns.Shutdown()
		s.ns.WaitForShutdown()
		if err := s.lock.Close(); err != nil {
			s.log.Warn("releasing nats directory", slog.Any("error", err))
		}
		close(s.stopped)
	})
	<-s.stopped
}

// InProcess is a nats.InProcessConnProvider.
type InProcess struct{ ns *server.Server }

// InProcessConn returns one end of a pipe whose other end is a new client of the server.
func (p *InProcess) InProcessConn() (net.Conn, error) { return p.ns.InProcessConn() }

func serverOptions(o Options) (*server.Options, error) {
	if o.Dir == "" {
		return nil, errors.New("embedded nats-server needs a directory")
	}
	opts := &server.Options{
		ServerName: or(o.Name, "usher"),
		// Otherwise the server traps signals and ends the process by itself.
		NoSigs:                 true,
		DontListen:             true,
		JetStream:              true,
		StoreDir:               filepath.Clean(o.Dir),
		JetStreamDomain:        o.Domain,
		SyncAlways:             o.SyncAlways,
		JetStreamMaxMemory:     or(o.MaxMemory, DefaultMaxMemory),
		JetStreamMaxStore:      or(o.MaxStore, DefaultMaxStore),
		DisableJetStreamBanner: true,
		PingInterval:           pingInterval,
		MaxPingsOut:            pingsOut,
		// A slow receiver must not slow an edge that publishes to it.
		NoFastProducerStall: true,
	}
	if err := admit(opts, o); err != nil {
		return nil, err
	}
	return opts, nil
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
