// Package flussonic asks a backend that was written for Flussonic (auth, on_play)
// exactly as Flussonic would ask it, so that it goes on working for every caller.
// README.md has the question, the answers and examples.
package flussonic
