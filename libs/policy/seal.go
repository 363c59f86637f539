package policy

import (
	"encoding/hex"
	"strings"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
)

// sealed marks an entry of a token list that is a fingerprint already.
const sealed = "fp:"

// Seal gives the policy's text with every entry of its token lists replaced by
// its keyed fingerprint, "fp:" and 32 hex digits, so that the text can be
// stored and sent to workers; all else stays byte for byte, and sealing again changes
// nothing. The text must have been accepted by Parse. The error is config.Problems.
func Seal(name string, data []byte, k *access.Keyer) ([]byte, error) {
	doc, err := config.Parse(name, data)
	if err != nil {
		return nil, err
	}
	paths := [][]any{{"clients", config.Each{}, "token", config.Each{}}}
	for _, list := range []string{"allow", "deny"} {
		paths = append(paths, []any{"streams", config.Each{}, list, "token", config.Each{}})
	}
	return doc.Splice(data, func(token string) string { return sealed + TokenKey(k, token).String() }, paths...)
}

// TokenKey is the fingerprint of an entry of a token list, whether it is a token
// or sealed. A viewer's token is never sealed: use Keyer.Fingerprint for it.
func TokenKey(k *access.Keyer, entry string) access.Key {
	if key, ok := sealedKey(entry); ok {
		return key
	}
	return k.Fingerprint(entry)
}

func sealedKey(entry string) (access.Key, bool) {
	digits, ok := strings.CutPrefix(entry, sealed)
	raw, err := hex.DecodeString(digits)
	if !ok || err != nil || len(raw) != len(access.Key{}) {
		return access.Key{}, false
	}
	return access.Key(raw), true
}
