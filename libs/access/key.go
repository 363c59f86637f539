package access

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"strings"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"
)

// ClusterKeySize is the size of the cluster's key in bytes.
const ClusterKeySize = 32

// Key names a session or a subject: the first 16 bytes of an HMAC-SHA-256 under
// the cluster's key, so that neither tokens nor users can be guessed from it.
type Key [16]byte

// String is the key in lower-case hex.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// IsZero says whether the key was never set.
func (k Key) IsZero() bool { return k == Key{} }

// Keyer makes keys and fingerprints under the cluster's one key. It is safe for
// concurrent use.
type Keyer struct{ pool sync.Pool }

// hasher is an HMAC that is used again: edges make a key for every segment.
type hasher struct {
	mac hash.Hash
	buf []byte
}

// NewKeyer takes the cluster's key, ClusterKeySize bytes.
func NewKeyer(secret []byte) (*Keyer, error) {
	if len(secret) != ClusterKeySize {
		return nil, fmt.Errorf("cluster key has %d bytes, want %d", len(secret), ClusterKeySize)
	}
	own := append([]byte(nil), secret...)
	k := new(Keyer)
	k.pool.New = func() any { return &hasher{mac: hmac.New(sha256.New, own)} }
	return k, nil
}

// LoadKeyer reads the cluster's key from a file that holds it in base64.
func LoadKeyer(path string) (*Keyer, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading cluster key: %w", err)
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(raw)))
	if err != nil {
		// The file's content must not reach a log, so the cause is not wrapped.
		return nil, fmt.Errorf("cluster key in %s: %w", path, errNotBase64)
	}
	return NewKeyer(secret)
}

var errNotBase64 = errors.New("not valid base64")

// Key hashes the parts, each with its length before it, so that a border
// between two parts cannot be moved. The first part should name the purpose.
func (k *Keyer) Key(parts ...string) Key {
	h := k.pool.Get().(*hasher)
	h.buf = h.buf[:0]
	for _, p := range parts {
		h.buf = binary.BigEndian.AppendUint32(h.buf, uint32(len(p)))
		h.buf = append(h.buf, p...)
	}
	h.mac.Reset()
	h.mac.Write(h.buf)
	clear(h.buf) // tokens were in it
	h.buf = h.mac.Sum(h.buf[:0])
	out := Key(h.buf[:16])
	k.pool.Put(h)
	return out
}

// Fingerprint stands for a token in logs, traces, metrics and tables. It is the
// zero Key for the empty token.
func (k *Keyer) Fingerprint(token string) Key {
	if token == "" {
		return Key{}
	}
	return k.Key("token", token)
}

// Sealer encrypts for a purpose under a key of its own that is made of the cluster's: what one process
// of a cluster keeps in a file is read by it alone, and by nothing that has the file without the key.
func (k *Keyer) Sealer(purpose string) (cipher.AEAD, error) {
	h := k.pool.Get().(*hasher)
	defer k.pool.Put(h)
	h.mac.Reset()
	h.mac.Write([]byte("sealer\x00" + purpose))
	sum := h.mac.Sum(nil)
	defer clear(sum)
	return chacha20poly1305.NewX(sum)
}
