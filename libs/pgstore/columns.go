package pgstore

import (
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
)

// columns are a batch's items as arrays, one a parameter of usher.apply.
type columns struct {
	questions, signs []int // index of the item of each element

	rounds                                      int32 // the last of round
	open                                        []bool
	round                                       []int32
	id                                          []pgtype.UUID
	at                                          []time.Time
	region, edge, node, caller, stream, realm   []string
	user                                        []pgtype.Text
	ip                                          []*netip.Addr
	agent                                       []string
	revision                                    []int64
	trace                                       []pgtype.UUID
	us                                          []int64
	steps, outcome, reason                      []string
	closes, session, replaces, key, subject, tk []pgtype.UUID
	device                                      []string
	still, keep                                 []bool
	limit                                       []int32
	mode                                        []string
	seat, lease                                 []int64
	would, wouldReason, rule, country           []pgtype.Text
	shadow                                      []bool

	// Lists of limits: where those of each question begin and how many they are. Nil where no question has any, so that
	// those of one limit cost nothing more.
	counted             []pgtype.Text
	limitsAt, limitsN   []pgtype.Int4
	allCounted          []pgtype.UUID
	limitOf             []pgtype.UUID
	limitName, limitHow []string
	limitMost           []int32
	limitCut            []int64

	signSession     []pgtype.UUID
	age             []int64
	ends            []bool
	signReason      []string
	requests, bytes []int64
}

// newColumns lays out the picked items. Opens that share a subject, a key or a session get rounds of their own, since
// one round judges its opens against one state.
func newColumns(items []admission.Item, pick []int) *columns {
	c := &columns{}
	rounds := map[access.Key]int32{}
	for _, i := range pick {
		switch it := &items[i]; {
		case it.Open != nil:
			o := it.Open
			c.questions = append(c.questions, i)
			c.record(&o.Record)
			touched := append([]access.Key{o.Subject, o.Key}, o.Counted...)
			if o.Replaces != uuid.Nil {
				touched = append(touched, access.Key(o.Replaces))
			}
			round := int32(0)
			for _, k := range touched {
				round = max(round, rounds[k])
			}
			round++
			c.rounds = max(c.rounds, round)
			for _, k := range touched {
				rounds[k] = round
			}
			// The function adds its own step and the last bracket.
			last := &c.steps[len(c.steps)-1]
			*last = strings.TrimSuffix(*last, "]")
			c.question(true, round, "", o.Reason, uuid.Nil)
			c.claim(o)
			c.limits(o)
		case it.Audit != nil:
			a := it.Audit
			c.questions = append(c.questions, i)
			c.record(&a.Record)
			c.question(false, 0, a.Outcome, a.Reason, a.Close)
			c.claim(&admission.Open{})
		case it.Sign != nil:
			c.signs = append(c.signs, i)
			c.sign(it.Sign)
		}
	}
	return c
}

// limits adds the list of an open that has one, and the keys that it counts under.
func (c *columns) limits(o *admission.Open) {
	n := len(c.session)
	if len(o.Counted) > 0 {
		c.counted = padded(c.counted, n)
		c.counted[n-1] = textOf(uuidArray(o.Counted))
		for _, k := range o.Counted {
			c.allCounted = append(c.allCounted, idOf(k))
		}
	}
	if !o.Listed() {
		return
	}
	all := o.All()
	c.limitsAt, c.limitsN = padded(c.limitsAt, n), padded(c.limitsN, n)
	c.limitsAt[n-1] = pgtype.Int4{Int32: int32(len(c.limitOf) + 1), Valid: true}
	c.limitsN[n-1] = pgtype.Int4{Int32: int32(len(all)), Valid: true}
	for i := range all {
		l := &all[i]
		c.limitOf, c.limitName = append(c.limitOf, idOf(l.Subject)), append(c.limitName, l.Name)
		c.limitMost, c.limitHow = append(c.limitMost, int32(min(l.Sessions, 1<<30))), append(c.limitHow, string(l.Mode))
		c.limitCut = append(c.limitCut, l.SoftCut().Milliseconds())
	}
}

// padded is list with n elements: those before it have none of it.
func padded[T any](list []T, n int) []T {
	return append(list, make([]T, n-len(list))...)
}

// uuidArray is the keys as the text of a uuid[].
func uuidArray(keys []access.Key) string {
	text := make([]string, len(keys))
	for i, k := range keys {
		text[i] = uuid.UUID(k).String()
	}
	return "{" + strings.Join(text, ",") + "}"
}

func (c *columns) record(r *admission.Record) {
	c.id = append(c.id, idOf(r.ID))
	c.at = append(c.at, admission.IDTime(r.ID))
	c.region, c.edge = append(c.region, r.Region), append(c.edge, r.Edge)
	c.node, c.caller = append(c.node, r.Node), append(c.caller, r.Caller)
	c.stream, c.realm = append(c.stream, r.Stream), append(c.realm, r.Realm)
	c.user = append(c.user, textOf(r.User))
	c.ip = append(c.ip, addrOf(r.IP))
	c.agent = append(c.agent, r.UserAgent)
	c.revision = append(c.revision, r.Revision)
	c.trace = append(c.trace, idOf(r.TraceID))
	c.would, c.wouldReason = append(c.would, textOf(string(r.Would))), append(c.wouldReason, textOf(string(r.WouldReason)))
	c.rule, c.country = append(c.rule, textOf(r.Rule)), append(c.country, textOf(r.Country))
	c.us = append(c.us, r.Duration.Microseconds())
	c.steps = append(c.steps, stepsJSON(r.Steps))
}

func (c *columns) question(open bool, round int32, o access.Outcome, r access.Reason, closes uuid.UUID) {
	c.open, c.round = append(c.open, open), append(c.round, round)
	c.outcome, c.reason = append(c.outcome, string(o)), append(c.reason, string(r))
	c.closes = append(c.closes, idOf(closes))
}

func (c *columns) claim(o *admission.Open) {
	c.session, c.replaces = append(c.session, idOf(o.Session)), append(c.replaces, idOf(o.Replaces))
	c.key, c.subject = append(c.key, idOf(o.Key)), append(c.subject, idOf(o.Subject))
	c.tk = append(c.tk, idOf(o.Token))
	c.device, c.still, c.keep = append(c.device, o.Device), append(c.still, o.StillPlaying), append(c.keep, o.Keep)
	c.limit, c.mode = append(c.limit, int32(min(o.Limit, 1<<30))), append(c.mode, string(o.Mode))
	c.seat, c.lease = append(c.seat, o.Seat.Milliseconds()), append(c.lease, o.Lease.Milliseconds())
	c.shadow = append(c.shadow, o.Shadow)
}

func (c *columns) sign(s *admission.Sign) {
	c.signSession = append(c.signSession, idOf(s.Session))
	c.age, c.ends = append(c.age, s.Age.Milliseconds()), append(c.ends, s.Close)
	c.signReason = append(c.signReason, string(s.Reason))
	c.requests, c.bytes = append(c.requests, s.Requests), append(c.bytes, s.Bytes)
}

func (c *columns) args(checkIDs bool) []any {
	return []any{
		checkIDs, c.rounds, c.open, c.round, c.id, c.at, c.region, c.edge, c.node, c.caller, c.stream, c.realm, c.user, c.ip, c.agent,
		c.revision, c.trace, c.us, c.steps, c.outcome, c.reason, c.closes, c.session, c.replaces, c.key, c.subject, c.tk,
		c.device, c.still, c.keep, c.limit, c.mode, c.seat, c.lease, c.would, c.wouldReason, c.rule, c.country, c.shadow,
		orEmpty(c.counted), orEmpty(c.limitsAt), orEmpty(c.limitsN), orEmpty(c.allCounted), orEmpty(c.limitOf), orEmpty(c.limitName),
		orEmpty(c.limitMost), orEmpty(c.limitHow), orEmpty(c.limitCut),
		c.signSession, c.age, c.ends, c.signReason, c.requests, c.bytes,
	}
}

// orEmpty is an empty array where there is none: a null one would make conditions on it null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func idOf[T ~[16]byte](id T) pgtype.UUID {
	return pgtype.UUID{Bytes: id, Valid: [16]byte(id) != [16]byte{}}
}

// textOf is NULL for the empty text.
func textOf(s string) pgtype.Text { return pgtype.Text{String: s, Valid: s != ""} }

func addrOf(a netip.Addr) *netip.Addr {
	if !a.IsValid() {
		return nil
	}
	return &a
}

func stepsJSON(steps []access.Step) string {
	if len(steps) == 0 {
		return "[]"
	}
	b, err := json.Marshal(steps)
	if err != nil {
		return "[]" // strings and numbers alone: cannot happen
	}
	return string(b)
}
