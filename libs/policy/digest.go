package policy

import (
	"crypto/sha256"
	"encoding/binary"
)

// digests gives each rule the fingerprint of all by which it judges: its own text, that of its checks,
// and what stands for all rules. Two revisions whose fingerprints of a rule differ may judge differently.
func (c *compiler) digests() {
	whole := sha256.New()
	for _, key := range []string{"defaults", "networks", "rules", "clients", "aliases"} {
		part := c.doc.Digest(key)
		_, _ = whole.Write(part[:]) // a hash takes everything
	}
	common := whole.Sum(nil)
	known := map[string][]byte{}
	for i, r := range c.snapshot.Rules {
		h := sha256.New()
		own := c.doc.Digest("streams", i)
		_, _ = h.Write(common)
		_, _ = h.Write(own[:])
		for _, check := range r.Checks {
			d, ok := known[check.Name]
			if !ok {
				sum := c.doc.Digest("checks", check.Name)
				d = sum[:]
				known[check.Name] = d
			}
			_, _ = h.Write(d)
		}
		// Short, so that nobody who reads a projection can try out what a rule may hold. 0 means none.
		r.digest = max(binary.BigEndian.Uint32(h.Sum(nil)), 1)
	}
}
