// Package aliaser asks the operator's own service which stream hides behind a name that a
// viewer asked for, and remembers what it said. README.md says what is sent and understood.
package aliaser
