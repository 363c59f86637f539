package directive

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
)

// ErrUnknown means that a message about a directive cannot be acted on: it was made by a newer
// version, or is none. Half understood it might hit whom it does not mean.
var ErrUnknown = errors.New("directive is not understood")

// Control is the message that spreads the directive, or its end: the same from whomever it comes.
// at is when the directive was given or revoked.
func (d *Directive) Control(revoked bool, at time.Time) *usherv1.Control {
	m := &usherv1.Directive{
		Id: d.ID[:], Kind: string(d.Kind), Action: string(d.Action),
		Limit: int32(min(max(d.Limit, 0), math.MaxInt32)), Realm: d.Realm, User: d.User, Stream: d.Stream,
		Node: d.Node, Check: d.Check, Device: d.Device, AtUnixMs: d.At.UnixMilli(), Reason: d.Reason, Author: d.Author,
		Revoked: revoked,
	}
	if d.Network.IsValid() {
		m.Network = d.Network.String()
	}
	if !d.Token.IsZero() {
		m.Token = d.Token[:]
	}
	if !d.Until.IsZero() {
		m.UntilUnixMs = d.Until.UnixMilli()
	}
	return &usherv1.Control{Kind: string(d.Kind), AtUnixMs: at.UnixMilli(), Directive: m}
}

// FromControl reads a message of kind ban or override. The error wraps ErrUnknown; of a revoked
// directive only the id is sure to be there.
func FromControl(c *usherv1.Control) (d Directive, revoked bool, err error) {
	m := c.GetDirective()
	id, err := uuid.FromBytes(m.GetId())
	if err != nil || id == uuid.Nil {
		return d, false, fmt.Errorf("%w: it has no id", ErrUnknown)
	}
	d.ID = id
	if m.GetRevoked() {
		return read(d, m), true, nil
	}
	if len(m.ProtoReflect().GetUnknown()) > 0 {
		return d, false, fmt.Errorf("%w: it has fields of a newer version", ErrUnknown)
	}
	d = read(d, m)
	if m.GetNetwork() != "" && !d.Network.IsValid() || len(m.GetToken()) > 0 && d.Token.IsZero() {
		return d, false, fmt.Errorf("%w: network or token", ErrUnknown)
	}
	// Not Validate: what an operator may order can change, whom it hits cannot.
	if err := errors.Join(d.validAction(), d.validCriteria()); err != nil {
		return d, false, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return d, false, nil
}

func read(d Directive, m *usherv1.Directive) Directive {
	d.Kind, d.Action, d.Limit = Kind(m.GetKind()), Action(m.GetAction()), int(m.GetLimit())
	d.Realm, d.User, d.Stream, d.Node = m.GetRealm(), m.GetUser(), m.GetStream(), m.GetNode()
	d.Check, d.Device, d.Reason, d.Author = m.GetCheck(), m.GetDevice(), m.GetReason(), m.GetAuthor()
	d.At = time.UnixMilli(m.GetAtUnixMs()).UTC()
	if m.GetUntilUnixMs() != 0 {
		d.Until = time.UnixMilli(m.GetUntilUnixMs()).UTC()
	}
	if p, err := netip.ParsePrefix(m.GetNetwork()); err == nil {
		d.Network = p.Masked()
	}
	if len(m.GetToken()) == len(access.Key{}) {
		d.Token = access.Key(m.GetToken())
	}
	return d
}

// Apply takes a control message into the book: kinds other than ban and override, and what is not
// understood, change nothing. changed says that the Set did; d is what came in or, with revoked,
// went.
func (b *Book) Apply(c *usherv1.Control, now time.Time) (d Directive, revoked, changed bool, err error) {
	if c.GetDirective() == nil {
		return d, false, false, nil
	}
	d, revoked, err = FromControl(c)
	switch {
	case err != nil:
		return d, revoked, false, err
	case revoked:
		return d, true, b.Revoke(d.ID, now), nil
	default:
		return d, false, d.Active(now) && b.Put(d), nil
	}
}
