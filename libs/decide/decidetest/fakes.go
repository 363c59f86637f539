// Package decidetest holds hand-written doubles of what an Engine works with.
package decidetest

import (
	"context"
	"errors"
	"sync"

	"usher.internal/libs/access"
	"usher.internal/libs/decide"
)

// ErrDown is what every double returns that was told to fail.
var ErrDown = errors.New("told to be down")

// Claims is decide.Claims in memory.
type Claims struct {
	mu   sync.Mutex
	down bool
	seen map[access.Key]string
}

var _ decide.Claims = (*Claims)(nil)

// NewClaims is empty and works.
func NewClaims() *Claims { return &Claims{seen: map[access.Key]string{}} }

// Down makes every call fail, or work again.
func (c *Claims) Down(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
}

// First implements decide.Claims.
func (c *Claims) First(_ context.Context, name access.Key, value string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return "", ErrDown
	}
	if first, ok := c.seen[name]; ok {
		return first, nil
	}
	c.seen[name] = value
	return value, nil
}

// Known is decide.Known in memory.
type Known struct {
	mu    sync.Mutex
	down  bool
	words map[knownKey]decide.Word
}

type knownKey struct {
	check string
	who   access.Key
}

var _ decide.Known = (*Known)(nil)

// NewKnown is empty and works.
func NewKnown() *Known { return &Known{words: map[knownKey]decide.Word{}} }

// Down makes look-ups fail, or work again.
func (k *Known) Down(down bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.down = down
}

// Allowed implements decide.Known.
func (k *Known) Allowed(_ context.Context, check string, who access.Key) (decide.Word, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.down {
		return decide.Word{}, false, ErrDown
	}
	w, ok := k.words[knownKey{check, who}]
	return w, ok, nil
}

// Remember implements decide.Known.
func (k *Known) Remember(check string, who access.Key, w decide.Word) {
	k.mu.Lock()
	defer k.mu.Unlock()
	// A no that names nobody leaves whose token it was.
	if before := k.words[knownKey{check, who}]; !w.Allowed && w.User == "" {
		w.User, w.SessionName, w.Sessions = before.User, before.SessionName, before.Sessions
	}
	k.words[knownKey{check, who}] = w
}
