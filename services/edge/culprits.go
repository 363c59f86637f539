package edge

import (
	"sync"

	"usher.internal/libs/access"
	"usher.internal/libs/directive"
)

// maxCulprits bounds whose sessions are remembered as ended by a directive on their account.
const maxCulprits = 65536

// culprits are the accounts whose sessions a ban ended here, by what their questions look like. While
// no worker can be reached nobody else says whose a token is, and a fail mode would let them in again.
type culprits struct {
	mu       sync.Mutex // guards accounts
	accounts map[access.Key]culprit
}

type culprit struct{ realm, user string }

func newCulprits() *culprits { return &culprits{accounts: make(map[access.Key]culprit)} }

func (c *culprits) put(k access.Key, who culprit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.accounts) < maxCulprits {
		c.accounts[k] = who
	}
}

func (c *culprits) get(k access.Key) (culprit, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	who, ok := c.accounts[k]
	return who, ok
}

// sweep forgets those whom no directive keeps out any more.
func (c *culprits) sweep(kept func(*directive.Viewer) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, who := range c.accounts {
		if !kept(&directive.Viewer{Realm: who.realm, User: who.user}) {
			delete(c.accounts, k)
		}
	}
}

// accuse remembers whose session was ended.
func (s *Service) accuse(ses *session) {
	if g := ses.grant.Load(); g.user != "" && ses.token != "" {
		s.culprits.put(looks(s.keyer, ses.token, ses.device, ses.prefix.As16(), ses.ua.Value()), culprit{g.realm, g.user})
	}
}

// suspect is a grant of the account that a stranger was known by, nil if he is one.
func (s *Service) suspect(q *question) *grant {
	if q.Token == "" {
		return nil
	}
	who, ok := s.culprits.get(looks(s.keyer, q.Token, q.Device, q.prefix.As16(), q.UserAgent))
	if !ok {
		return nil
	}
	return &grant{realm: who.realm, user: who.user}
}

// looks is the token from the same device: a token alone may be one that many share.
func looks(k *access.Keyer, token, device string, at [16]byte, agent string) access.Key {
	return k.Key("culprit", token, device, string(at[:]), agent)
}
