package access

import (
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// variables of an address to which a refused viewer is sent.
const (
	varStream   = "{stream}"
	varReason   = "{reason}"
	varDecision = "{decision}"
)

// CheckAddress says what is wrong with an address that Address fills in: it must name its
// host in full, so that nothing a viewer sends can choose where he is sent.
func CheckAddress(template string) error {
	scheme, rest, ok := strings.Cut(template, "://")
	host := rest
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		host = rest[:end]
	}
	switch {
	case len(template) > MaxPath:
		return fmt.Errorf("is longer than %d bytes", MaxPath)
	case !ok || scheme != "http" && scheme != "https" || host == "":
		return fmt.Errorf("want an address that begins with http:// or https://")
	case strings.ContainsAny(host, `{}\@`):
		return fmt.Errorf("the host must stand there in full: variables may come after it only")
	}
	for _, c := range []byte(template) {
		if c <= 0x20 || c >= 0x7f || c == '\\' || c == '"' || c == '<' || c == '>' {
			return fmt.Errorf("holds characters that no address may hold as they are; write them percent-encoded")
		}
	}
	bare := strings.NewReplacer(varStream, "", varReason, "", varDecision, "").Replace(template)
	if strings.ContainsAny(bare, "{}") {
		return fmt.Errorf("a variable is not known; there are %s, %s and %s", varStream, varReason, varDecision)
	}
	return nil
}

// Address fills in an address that CheckAddress found good: what it puts in is
// percent-encoded. stream is the name that the viewer asked for.
func Address(template, stream string, reason Reason, decision uuid.UUID) string {
	if !strings.Contains(template, "{") {
		return template
	}
	return strings.NewReplacer(
		varStream, encode(stream), varReason, encode(string(reason)), varDecision, decision.String(),
	).Replace(template)
}

// encode escapes all but what stands for itself in every part of an address (RFC 3986).
func encode(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}
