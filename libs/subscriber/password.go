package subscriber

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Cost of a hash (OWASP's first choice for argon2id at little memory), and the most that a
// stored one may ask for: a row must not be able to stop a worker.
const (
	hashMemory, hashTime, hashThreads = 19 * 1024, 2, 1
	maxMemory, maxTime, maxThreads    = 256 * 1024, 16, 16
	saltSize, hashSize                = 16, 32
	maxHashSize                       = 64
)

// MaxPassword is the longest password in bytes.
const MaxPassword = 256

// ErrHash is a stored password that is no argon2id hash in PHC form, or one that costs
// more than we pay.
var ErrHash = errors.New("not an argon2id hash in PHC form within bounds")

// HashPassword gives the argon2id hash in PHC form, with a salt of its own.
func HashPassword(password string) string {
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	sum := argon2.IDKey([]byte(password), salt, hashTime, hashMemory, hashThreads, hashSize)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, hashMemory, hashTime, hashThreads,
		b64.EncodeToString(salt), b64.EncodeToString(sum))
}

// noPassword is a hash that costs as much as any and that nobody has the password of: finding one would
// break argon2id. It is not computed, since each worker would at its start.
func noPassword() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, hashMemory, hashTime, hashThreads,
		b64.EncodeToString(make([]byte, saltSize)), b64.EncodeToString(make([]byte, hashSize)))
}

// hash is a stored hash, read.
type hash struct {
	memory, time uint32
	threads      uint8
	salt, sum    []byte
}

// CheckPassword says whether the password is the one that was hashed. It takes tens of
// milliseconds and 19 MiB: see Passwords. The error is ErrHash.
func CheckPassword(phc, password string) (bool, error) {
	h, err := parseHash(phc)
	if err != nil {
		return false, err
	}
	sum := argon2.IDKey([]byte(password), h.salt, h.time, h.memory, h.threads, uint32(len(h.sum)))
	return subtle.ConstantTimeCompare(sum, h.sum) == 1, nil
}

func parseHash(phc string) (h hash, err error) {
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return h, ErrHash
	}
	var threads uint32
	n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &threads)
	if err != nil || n != 3 || fmt.Sprintf("m=%d,t=%d,p=%d", h.memory, h.time, threads) != parts[3] {
		return h, ErrHash
	}
	if h.memory > maxMemory || h.time < 1 || h.time > maxTime || threads < 1 || threads > maxThreads {
		return h, ErrHash
	}
	h.threads = uint8(threads)
	h.salt, err = base64.RawStdEncoding.Strict().DecodeString(parts[4])
	if err != nil || len(h.salt) < 8 || len(h.salt) > maxHashSize {
		return h, ErrHash
	}
	h.sum, err = base64.RawStdEncoding.Strict().DecodeString(parts[5])
	if err != nil || len(h.sum) < 16 || len(h.sum) > maxHashSize {
		return h, ErrHash
	}
	return h, nil
}
