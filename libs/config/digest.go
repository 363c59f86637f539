package config

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"go.yaml.in/yaml/v3"
)

// maxDigested bounds the values that one digest looks at: aliases may multiply them.
const maxDigested = 1 << 20

// Digest is a fingerprint of what stands at a place: the same for the same values, whatever their
// comments, layout or line. A place where nothing stands has one of its own.
func (d *Document) Digest(path ...any) [sha256.Size]byte {
	h := sha256.New()
	left := maxDigested
	digest(h, d.node(path), &left)
	return [sha256.Size]byte(h.Sum(nil))
}

func digest(h hash.Hash, n *yaml.Node, left *int) {
	if *left--; *left < 0 {
		return
	}
	if n == nil {
		write(h, "nothing", 0)
		return
	}
	n = follow(n)
	write(h, n.ShortTag()+" "+n.Value, len(n.Content))
	for _, c := range n.Content {
		digest(h, c, left)
	}
}

// write adds a text and a number so that no two pairs of them look the same.
func write(h hash.Hash, text string, n int) {
	var size [16]byte
	binary.BigEndian.PutUint64(size[:8], uint64(len(text)))
	binary.BigEndian.PutUint64(size[8:], uint64(n))
	_, _ = h.Write(size[:]) // a hash takes everything
	_, _ = h.Write([]byte(text))
}
