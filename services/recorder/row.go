package recorder

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/policy"
	"usher.internal/schemas/nats"
	"usher.internal/schemas/proto/usherv1"
)

// The journal's kinds: the last token of an entry's subject.
const (
	kindDecision  = nats.JournalDecision
	kindUncounted = nats.JournalUncounted
	kindRepeats   = nats.JournalRepeats
	kindTotals    = nats.JournalTotals
)

const (
	idSize     = 16
	maxSteps   = 64 << 10 // bytes of a row's steps
	maxText    = 1024     // bytes of a step's text
	maxReason  = 64
	maxRepeats = 1 << 40
	maxMicros  = int64(3600) * 1e6
	maxBytes   = int64(1) << 56
	maxPlaying = int64(366*24*3600) * 1e3 // milliseconds
	maxCountry = 2
)

var (
	// errMalformed is an entry that breaks the contract of schemas/proto.
	errMalformed = errors.New("malformed entry")
	// errForeign is an entry about a node that the policy gives to another edge.
	errForeign = errors.New("node belongs to another edge")
)

// checkKind says whether the content is what the subject promises. An edge that could file
// its entries under another kind would choose how they are recorded.
func checkKind(kind string, e *usherv1.JournalEntry) error {
	var ok bool
	switch kind {
	case kindDecision:
		ok = e.GetDecision() != nil
	case kindUncounted:
		ok = e.GetUncounted() != nil
	case kindRepeats:
		ok = e.GetRepeats() != nil
	case kindTotals:
		ok = e.GetTotals() != nil
	}
	if !ok {
		return fmt.Errorf("%w: kind and content differ", errMalformed)
	}
	return nil
}

// checkRow makes a row of what an edge reported, storable and harmless: the edge is the
// subject's, text is cleaned, and the steps are written anew, since one that Postgres cannot
// read as JSON would spoil every query of the view. It changes the row.
func checkRow(s *policy.Snapshot, region, edge string, r *usherv1.DecisionRow) error {
	id, err := uuid.FromBytes(r.GetId())
	if err != nil || id.Version() != 7 || id.Variant() != uuid.RFC4122 {
		return fmt.Errorf("%w: id is not a UUIDv7", errMalformed)
	}
	switch access.Outcome(r.GetOutcome()) {
	case access.Allow, access.Deny, access.Redirect:
	default:
		return fmt.Errorf("%w: outcome", errMalformed)
	}
	if n := len(r.GetReason()); n == 0 || n > maxReason {
		return fmt.Errorf("%w: reason", errMalformed)
	}
	if err := checkIDs(r); err != nil {
		return err
	}
	switch access.Outcome(r.GetWould()) {
	case "", access.Allow, access.Deny, access.Redirect:
	default:
		return fmt.Errorf("%w: would", errMalformed)
	}
	cleanTexts(region, edge, r)
	if foreignNode(s, edge, r.GetNode()) && !disown(r) {
		return errForeign
	}
	r.DurationUs = min(max(r.GetDurationUs(), 0), maxMicros)
	r.Repeats = min(max(r.GetRepeats(), 0), maxRepeats)
	r.PolicyRevision = max(r.GetPolicyRevision(), 0)
	r.Steps = cleanSteps(r.GetSteps())
	return nil
}

func checkIDs(r *usherv1.DecisionRow) error {
	for _, raw := range [][]byte{r.GetSessionId(), r.GetTraceId()} {
		if len(raw) != 0 && len(raw) != idSize {
			return fmt.Errorf("%w: id of %d bytes", errMalformed, len(raw))
		}
	}
	if r.GetIp() == "" {
		return nil
	}
	ip, err := netip.ParseAddr(r.GetIp())
	if err != nil {
		return fmt.Errorf("%w: address", errMalformed)
	}
	r.Ip = ip.Unmap().WithZone("").String()
	return nil
}

func cleanTexts(region, edge string, r *usherv1.DecisionRow) {
	r.Edge = edge
	if nats.CheckToken("region", r.GetRegion()) != nil {
		r.Region = region
	}
	r.Reason = access.Clean(r.GetReason(), maxReason)
	r.WouldReason, r.WouldRule = access.Clean(r.GetWouldReason(), maxReason), access.Clean(r.GetWouldRule(), access.MaxPath)
	r.Node = access.Clean(r.GetNode(), access.MaxName)
	r.Caller = access.Clean(r.GetCaller(), access.MaxName)
	r.Stream = access.Clean(r.GetStream(), access.MaxName)
	r.Realm = access.Clean(r.GetRealm(), access.MaxName)
	r.User = access.Clean(r.GetUser(), access.MaxName)
	r.UserAgent = access.Clean(r.GetUserAgent(), access.MaxUserAgent)
}

// cleanSteps reads and writes the steps; what is no list of steps becomes the empty list.
func cleanSteps(text string) string {
	var steps []access.Step
	if len(text) > maxSteps || json.Unmarshal([]byte(text), &steps) != nil {
		return "[]"
	}
	for i := range steps {
		s := &steps[i]
		s.Name, s.Result = access.Clean(s.Name, access.MaxName), access.Clean(s.Result, access.MaxName)
		s.Text = access.Clean(s.Text, maxText)
	}
	return stepsOf(steps...)
}

func stepsOf(steps ...access.Step) string {
	text, err := json.Marshal(steps)
	if err != nil || steps == nil {
		return "[]"
	}
	return string(text)
}

func checkRepeats(r *usherv1.Repeats) error {
	id, err := uuid.FromBytes(r.GetDecisionId())
	if err != nil || id.Version() != 7 {
		return fmt.Errorf("%w: repeats of no question", errMalformed)
	}
	if r.GetTotal() < 0 || r.GetTotal() > maxRepeats {
		return fmt.Errorf("%w: %d repeats", errMalformed, r.GetTotal())
	}
	return nil
}

// checkTotals makes totals storable and harmless; it changes them.
func checkTotals(s *policy.Snapshot, edge string, t *usherv1.SessionTotals) error {
	if id, err := uuid.FromBytes(t.GetSessionId()); err != nil || id == uuid.Nil {
		return fmt.Errorf("%w: totals of no session", errMalformed)
	}
	t.Node = access.Clean(t.GetNode(), access.MaxName)
	if t.GetNode() == "" {
		return fmt.Errorf("%w: totals of no node", errMalformed)
	}
	if foreignNode(s, edge, t.GetNode()) {
		return errForeign
	}
	t.Bytes, t.PlayingMs = min(max(t.GetBytes(), 0), maxBytes), min(max(t.GetPlayingMs(), 0), maxPlaying)
	t.Country, t.Detail = access.Clean(t.GetCountry(), maxCountry), access.Clean(t.GetDetail(), maxReason)
	t.EndedUnixMs = max(t.GetEndedUnixMs(), 0)
	return nil
}

// disown takes the node's name out of a row by which an edge refused a node that it does not
// know, since the policy gives it to another edge: a server that asks at the wrong edge is
// refused there and must be found in the audit. False for any other row.
func disown(r *usherv1.DecisionRow) bool {
	if access.Outcome(r.GetOutcome()) != access.Deny || access.Reason(r.GetReason()) != access.UnknownNode || len(r.GetSessionId()) != 0 {
		return false
	}
	r.Steps = stepsOf(access.Step{Name: "node", Result: string(access.WrongEdge), Text: "the policy gives node " + r.GetNode() + " to another edge"})
	r.Node = ""
	return true
}

// foreignNode says whether the policy gives the node to another edge. A node that it does
// not list is nobody's: edges report the refusals of such nodes.
func foreignNode(s *policy.Snapshot, edge, node string) bool {
	if s == nil {
		return false
	}
	n := s.Nodes[node]
	return n != nil && n.Edge != "" && n.Edge != edge
}
