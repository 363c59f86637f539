package edge

import (
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
)

// message is the question as it goes to a worker.
func message(q *question) *usherv1.AuthRequest {
	m := &usherv1.AuthRequest{
		Id: q.ID[:], Region: q.Region, Edge: q.Edge, Node: q.Node, Caller: q.Caller,
		SessionKey: q.Key[:], StillPlaying: q.StillPlaying, CameBack: q.CameBack,
		Stream: q.Stream, Token: q.Token, Query: q.Query, Path: q.Path, Host: q.Host,
		Ip: q.IP.String(), UserAgent: q.UserAgent, Referer: q.Referer, Device: q.device(),
		Channel: q.Channel, CallerSession: q.CallerSession, Protocol: q.Protocol,
		ReceivedUnixUs: q.Received.UnixMicro(), KnownStream: q.Known,
		Action: string(q.Action), Update: q.Update, Archive: archive(q.Archive),
	}
	if q.Session != uuid.Nil {
		m.SessionId = q.Session[:]
	}
	if q.Replaces != uuid.Nil {
		m.Replaces = q.Replaces[:]
	}
	return m
}

// archive is the recorded part as it goes to a worker, nil for the live stream.
func archive(a access.Archive) *usherv1.Archive {
	kind, asked := map[access.ArchiveKind]usherv1.Archive_Kind{
		access.Range: usherv1.Archive_KIND_RANGE, access.From: usherv1.Archive_KIND_FROM,
		access.Back: usherv1.Archive_KIND_BACK, access.Piece: usherv1.Archive_KIND_RANGE, access.Unknown: usherv1.Archive_KIND_UNSPECIFIED,
	}[a.Kind]
	if !asked {
		return nil
	}
	return &usherv1.Archive{Kind: kind, Start: a.Start, Length: a.Length, Since: a.Since}
}

// reach reads how far into the archive a viewer may go.
func reach(m *usherv1.Reach) *access.Reach {
	switch {
	case m == nil:
		return nil
	case m.GetClosed():
		return access.None()
	}
	r := &access.Reach{Depth: time.Duration(m.GetDepthS()) * time.Second, Length: time.Duration(m.GetLengthS()) * time.Second}
	for _, w := range m.GetWindows() {
		r.Windows = append(r.Windows, access.Window{From: w.GetFrom(), To: w.GetTo()})
	}
	return r
}

// sound says whether a decided reply can be acted on: a reply that is none must not
// let anybody in.
func sound(r *usherv1.AuthReply) bool {
	if len(r.GetDecisionId()) != 16 {
		return false
	}
	switch access.Outcome(r.GetOutcome()) {
	case access.Allow:
		return len(r.GetSessionId()) == 16 || r.GetUnaccounted() && len(r.GetSessionId()) == 0
	case access.Deny, access.Redirect:
		return true
	}
	return false
}

// decision reads a sound reply.
func decision(r *usherv1.AuthReply) access.Decision {
	d := access.Decision{
		ID: idOf(r.GetDecisionId()), Outcome: access.Outcome(r.GetOutcome()),
		Reason: access.Reason(shared(r.GetReason())), Text: r.GetText(), Realm: r.GetRealm(), User: r.GetUser(),
		SessionName: r.GetSessionName(), MaxSessions: int(r.GetMaxSessions()),
		Stream: shared(r.GetStream()), Location: r.GetLocation(), Revision: r.GetPolicyRevision(), Unaccounted: r.GetUnaccounted(),
		Unknown: r.GetUnknown(),
	}
	if d.Outcome == access.Allow {
		d.Session, d.Reach = idOf(r.GetSessionId()), reach(r.GetReach())
		d.Lease = min(max(time.Duration(r.GetLeaseMs())*time.Millisecond, 0), maxLease)
	}
	return d
}

// maxLease bounds what a reply can make an edge answer from memory.
const maxLease = 24 * time.Hour

// idOf reads an id, uuid.Nil if it is none.
func idOf(b []byte) uuid.UUID {
	if len(b) != 16 {
		return uuid.Nil
	}
	return uuid.UUID(b)
}

// newID makes the id of a question by the workers' clock as far as it is known.
func (s *Service) newID() uuid.UUID {
	id := uuid.Must(uuid.NewV7()) // fails only without a source of randomness
	off := s.clockOffset.Load()
	if off == 0 {
		return id
	}
	ms := uint64(time.Now().UnixMilli() + off)
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}
