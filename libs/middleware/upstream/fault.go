package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	"usher.internal/libs/middleware"
)

// fault turns a transport's error into a constant text: the original may hold
// the address with its query, or what the backend sent.
func fault(ctx context.Context, err error) error {
	text := kindOfFault(err)
	if ctx.Err() != nil {
		text = "it did not answer in time"
		if errors.Is(ctx.Err(), context.Canceled) {
			text = "nobody waits for the answer"
		}
	}
	return fmt.Errorf("%w: %s", middleware.ErrUnavailable, text)
}

// kindOfFault names a transport's error without repeating it.
func kindOfFault(err error) string {
	var (
		dns     *net.DNSError
		op      *net.OpError
		cert    *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		record  tls.RecordHeaderError
		alert   tls.AlertError
		timeout net.Error
	)
	switch {
	case errors.As(err, &dns):
		return "its name could not be resolved"
	case errors.As(err, &cert), errors.As(err, &unknown), errors.As(err, &host), errors.As(err, &record), errors.As(err, &alert):
		return "its TLS failed"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "it did not answer in time"
	case errors.As(err, &op) && op.Op == "dial":
		return "it could not be connected to"
	}
	return "its answer is broken or the connection was lost"
}
