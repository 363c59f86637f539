package worker

import (
	"fmt"
	"math"
	"strings"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/decide"
	"usher.internal/schemas/proto/usherv1"
)

const (
	// shortLease is the most on a session that is not live any more although it was opened a
	// moment ago (zapped by a later open of the same batch): the time for which a zapped
	// session's last requests are tolerated.
	shortLease = 20 * time.Second
	// maxNamed is how many holders of a full limit a refusal names.
	maxNamed = 5
	// maxStepText caps what one step explains, in bytes.
	maxStepText = 1024
)

// reply says what the ledger made of the verdict.
func (a *answerer) reply(q *question, r admission.Result) *usherv1.AuthReply {
	v := &q.verdict
	m := a.status(usherv1.AuthReply_STATUS_DECIDED)
	m.DecisionId = r.Decision[:]
	m.Outcome, m.Reason = string(r.Outcome), string(r.Reason)
	m.Realm, m.User = r.Realm, r.User
	m.PolicyRevision = q.judge.snapshot.Revision
	if own := q.stream(); own != q.Stream {
		m.Stream = own
	}
	// An earlier row, or the ledger, may have decided otherwise than the policy did now.
	same := r.Outcome == v.Outcome && r.Reason == v.Reason
	m.Text = r.Reason.Text()
	if same && v.Text != "" {
		m.Text = v.Text
	}
	if r.Outcome == access.Allow {
		m.SessionName = v.SessionName
		m.Reach = reach(v.Reach)
		if v.Outcome != access.Allow {
			m.Reach = reach(access.None()) // an earlier row let him in, and nobody says now how far
		}
		m.SessionId = r.Session[:]
		m.MaxSessions = int32(min(max(announced(v), 0), math.MaxInt32))
		m.LeaseMs = q.lease(r.Live).Milliseconds()
		return m
	}
	if r.Reason == access.Limit {
		m.Text = fullText(v, &r)
	}
	m.Location = v.Address(r.Reason, r.Decision)
	if same {
		m.Unknown = v.Unknown
	}
	return m
}

// announced is the limit that the caller hears of: one that enforces it by itself must not where it
// is only tried out.
func announced(v *decide.Verdict) int {
	switch {
	case v.Would != "":
		return v.Told
	case v.Shadow:
		return 0
	}
	return v.Limit
}

// lease is the verdict's, unless the session has ended already or an earlier row let the
// viewer in whom the policy would deny now.
func (q *question) lease(live bool) time.Duration {
	switch {
	case q.verdict.Outcome != access.Allow:
		return shortLease
	case !live:
		return min(q.verdict.Lease, shortLease)
	}
	return q.verdict.Lease
}

// fullText says which limit was full.
func fullText(v *decide.Verdict, r *admission.Result) string {
	at := r.Full
	if v.Limit >= 0 {
		at-- // the account's stands first
	}
	if at < 0 || at >= len(v.More) {
		return limitText(v.Limit, r.Taken, "", r.Holders)
	}
	return limitText(v.More[at].Sessions, r.Taken, " "+v.More[at].Name, r.Holders)
}

// limitText names the sessions that hold the seats, for the operator who is asked why.
func limitText(limit, taken int, name string, holders []admission.Holder) string {
	var b strings.Builder
	if taken == 0 {
		taken = max(len(holders), limit)
	}
	fmt.Fprintf(&b, "%d of %d seats%s are taken", taken, max(limit, 0), name)
	for i, h := range holders {
		if i == maxNamed {
			fmt.Fprintf(&b, " and %d more", len(holders)-maxNamed)
			break
		}
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&b, "%s%s on %s since %s", sep, h.Stream, h.Node, h.OpenedAt.UTC().Format("2006-01-02 15:04:05Z"))
	}
	return b.String()
}

// steps are the verdict's steps between what came before and what comes after it.
func (a *answerer) steps(q *question) []access.Step {
	v := &q.verdict
	steps := make([]access.Step, 0, len(v.Steps)+2)
	if hop := q.began.Sub(q.Received); hop >= 0 && hop < maxHop {
		steps = append(steps, access.Step{
			Name: "edge to worker", Result: "received", Text: "as the clocks of both say", Micros: hop.Microseconds()})
	}
	for _, s := range v.Steps {
		// A middleware's text may hold anything; a NUL would make the steps unreadable in SQL.
		s.Text = access.Clean(s.Text, maxStepText)
		steps = append(steps, s)
	}
	switch {
	case v.Outcome != access.Allow:
	case v.Limited():
		steps = append(steps, access.Step{Name: "limit", Result: "asked", Text: limitWords(v)})
	default:
		steps = append(steps, access.Step{Name: "limit", Result: "none"})
	}
	return steps
}

// limitWords says what the ledger was asked for.
func limitWords(v *decide.Verdict) string {
	text := v.LimitWords()
	if v.Shadow {
		text += ", tried out: nobody is refused or ended for it"
	}
	return text
}
