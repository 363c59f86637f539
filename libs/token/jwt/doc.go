// Package jwt verifies and signs JSON Web Tokens (RFC 7519, compact JWS) under a secret, a file
// of keys, or a key set that is fetched from the issuer and kept up to date off the way of
// questions.
//
// Which algorithm fits is decided by the key, never by the token: README.md has the rules.
package jwt
