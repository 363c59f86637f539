package worker

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

// keySize is the size of ids and keys on the wire, in bytes.
const keySize = 16

// malformed is a question that breaks the contract of schemas/proto: an edge of another
// make or a forged message, never a viewer's doing, since edges clean what viewers send.
type malformed struct{ text string }

// Error implements error.
func (m *malformed) Error() string { return m.text }

func malformedf(format string, args ...any) error {
	return &malformed{text: fmt.Sprintf(format, args...)}
}

// toRequest reads a question. The edge's name is the subject's, which NATS enforces, not
// the message's. Of a malformed question the request holds what could be read, cleaned, so
// that it can be audited: its ID is uuid.Nil unless the question's own id is good.
func toRequest(region, edge string, m *usherv1.AuthRequest) (*access.Request, error) {
	r := &access.Request{
		Region:        region,
		Edge:          access.Clean(edge, access.MaxName),
		Node:          access.Clean(m.GetNode(), access.MaxName),
		Caller:        access.Clean(m.GetCaller(), access.MaxName),
		StillPlaying:  m.GetStillPlaying(),
		CameBack:      m.GetCameBack(),
		Stream:        access.Clean(m.GetStream(), access.MaxName),
		Known:         access.Clean(m.GetKnownStream(), access.MaxName),
		Token:         m.GetToken(),
		Query:         m.GetQuery(),
		Path:          m.GetPath(),
		Host:          access.Clean(m.GetHost(), access.MaxHost),
		UserAgent:     access.Clean(m.GetUserAgent(), access.MaxUserAgent),
		Referer:       access.Clean(m.GetReferer(), access.MaxReferer),
		Device:        access.Clean(m.GetDevice(), access.MaxName),
		Channel:       access.Clean(m.GetChannel(), access.MaxName),
		CallerSession: access.Clean(m.GetCallerSession(), access.MaxName),
		Protocol:      access.Clean(m.GetProtocol(), access.MaxName),
		Received:      time.UnixMicro(m.GetReceivedUnixUs()),
		Action:        action(m.GetAction()),
		Update:        m.GetUpdate(),
		Archive:       archive(m.GetArchive()),
	}
	if asked := m.GetRegion(); nats.CheckToken("region", asked) == nil {
		r.Region = asked
	}
	if err := readIDs(r, m); err != nil {
		return r, err
	}
	if err := readAddress(r, m.GetIp()); err != nil {
		return r, err
	}
	return r, checkSizes(m)
}

// action reads what the viewer wants; what this version does not know is nobody's right.
func action(text string) access.Action {
	if text == "" {
		return access.Play
	}
	return access.Action(access.Clean(text, access.MaxName))
}

func archive(m *usherv1.Archive) access.Archive {
	if m == nil {
		return access.Archive{}
	}
	a := access.Archive{Kind: access.Unknown, Start: m.GetStart(), Length: m.GetLength(), Since: m.GetSince()}
	switch m.GetKind() {
	case usherv1.Archive_KIND_RANGE:
		a.Kind = access.Range
	case usherv1.Archive_KIND_FROM:
		a.Kind = access.From
	case usherv1.Archive_KIND_BACK:
		a.Kind = access.Back
	}
	return a
}

// reach is how far into the archive an edge may let the viewer go by its memory.
func reach(r *access.Reach) *usherv1.Reach {
	if r == nil {
		return nil
	}
	m := &usherv1.Reach{Closed: r.Closed(), DepthS: int64(r.Depth.Seconds()), LengthS: int64(r.Length.Seconds())}
	for _, w := range r.Windows {
		m.Windows = append(m.Windows, &usherv1.Window{From: w.From, To: w.To})
	}
	return m
}

// readIDs reads the id first: whatever else is wrong, the row stands under it.
func readIDs(r *access.Request, m *usherv1.AuthRequest) error {
	id, err := uuid.FromBytes(m.GetId())
	if err != nil || id.Version() != 7 || id.Variant() != uuid.RFC4122 {
		return malformedf("the question's id is not a UUIDv7")
	}
	r.ID = id
	if n := len(m.GetSessionKey()); n != keySize {
		return malformedf("the session key has %d bytes, want %d", n, keySize)
	}
	r.Key = access.Key(m.GetSessionKey())
	if r.Key.IsZero() {
		return malformedf("the session key is not set")
	}
	var ok bool
	if r.Session, ok = optionalID(m.GetSessionId()); !ok {
		return malformedf("the session id has %d bytes, want none or %d", len(m.GetSessionId()), keySize)
	}
	if r.Replaces, ok = optionalID(m.GetReplaces()); !ok {
		return malformedf("the replaced session's id has %d bytes, want none or %d", len(m.GetReplaces()), keySize)
	}
	return nil
}

func optionalID(raw []byte) (uuid.UUID, bool) {
	if len(raw) == 0 {
		return uuid.Nil, true
	}
	id, err := uuid.FromBytes(raw)
	return id, err == nil
}

// readAddress reads the viewer's address; "" is a caller that does not tell it.
func readAddress(r *access.Request, text string) error {
	if text == "" {
		return nil
	}
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return malformedf("the viewer's address is not an IP address")
	}
	r.IP = ip.Unmap().WithZone("")
	return nil
}

// checkSizes refuses what must not be cut: half a token is another token, half a
// stream's name is another stream.
func checkSizes(m *usherv1.AuthRequest) error {
	for _, f := range []struct {
		what  string
		size  int
		limit int
	}{
		{"node's name", len(m.GetNode()), access.MaxName},
		{"stream's name", len(m.GetStream()), access.MaxName},
		{"known stream's name", len(m.GetKnownStream()), access.MaxName},
		{"token", len(m.GetToken()), access.MaxToken},
		{"query", len(m.GetQuery()), access.MaxQuery},
		{"path", len(m.GetPath()), access.MaxPath},
		{"device", len(m.GetDevice()), access.MaxName},
	} {
		if f.size > f.limit {
			return malformedf("the %s has %d bytes, more than %d", f.what, f.size, f.limit)
		}
	}
	if m.GetNode() == "" {
		return malformedf("the question names no node")
	}
	return nil
}

// sessionID derives the id of the session that a question may open: the same question
// asked of two workers names the same session, so that it does not matter which answer the
// edge hears. It is a UUIDv7 of the question's time, not to be guessed without the key.
func sessionID(k *access.Keyer, question uuid.UUID) uuid.UUID {
	id := uuid.UUID(k.Key("session", string(question[:])))
	copy(id[:6], question[:6])
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}
