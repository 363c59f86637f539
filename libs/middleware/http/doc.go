// Package http asks an operator's own backend exactly as Cesbo Astra's backend
// type "HTTP Request" would, so that a backend written for Astra, or for
// Flussonic's answer headers, serves every caller of Usher unchanged.
// README.md has the request and the answers.
package http
