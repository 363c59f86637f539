// Package securetoken verifies and signs the token that Flussonic calls
// securetoken and that Cesbo's Astra and Alta share: a SHA-1 over stream (or
// path), address, times, secret, salt and, at times, a user, carried as
//
//	HASH-SALT-END-START[-USER]
//
// The scheme is loosely specified; README.md lists every point on which its
// makers disagree or are silent, and how this package decides it.
package securetoken
