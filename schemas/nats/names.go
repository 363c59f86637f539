// Package nats names every subject, stream and bucket of Usher, once. The version
// of a contract is in its subject; <edge> is the last token of a request so that
// publish permissions can hold an edge to its own name (DESIGN.md §3).
package nats

import (
	"fmt"
	"regexp"
)

// QueueGroup is the queue group of the workers for auth and seats.
const QueueGroup = "worker"

// Subjects that are fixed.
const (
	// Tick carries the control stream's last sequence every 500 ms.
	Tick = "usher.v1.tick"
	// ControlAll matches every control message.
	ControlAll = "usher.v1.control.>"
	// EventAll matches every live event.
	EventAll = "usher.v1.event.>"
	// JournalAll matches every journal entry.
	JournalAll = "usher.v1.journal.>"
)

// Kinds of journal entries.
const (
	// JournalDecision is what an edge decided by itself.
	JournalDecision = "decision"
	// JournalRepeats are answers that repeated a row.
	JournalRepeats = "repeats"
	// JournalTotals are what a node said of a session that is over.
	JournalTotals = "totals"
	// JournalUncounted is what a worker decided while Postgres was away. No edge may say that.
	JournalUncounted = "uncounted"
)

// Streams and buckets.
const (
	// ControlStream keeps the last control message of each subject.
	ControlStream = "USHER_CONTROL"
	// PolicyBucket holds the policy for workers under PolicyKey.
	PolicyBucket = "usher_policy"
	// PolicyKey is the key of the revision in force.
	PolicyKey = "current"
	// ProjectionBucket holds what edges may read: EdgeProjectionKey or AnyProjectionKey.
	ProjectionBucket = "usher_projection"
	// AnyProjectionKey serves edges that no node of the policy names.
	AnyProjectionKey = "any"
)

// Headers of a request. nats.Header is case-sensitive: use these spellings.
const (
	// DeadlineHeader is what is left of the caller's budget, in milliseconds.
	DeadlineHeader = "usher-deadline-ms"
	// TraceparentHeader is W3C trace context, in lower case as the server's own tracing reads it.
	TraceparentHeader = "traceparent"
)

var token = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// CheckToken says whether a region's or edge's name can stand in a subject.
func CheckToken(what, name string) error {
	if !token.MatchString(name) {
		return fmt.Errorf("%s name %q: want 1 to 64 of letters, digits, _ and -", what, name)
	}
	return nil
}

// Auth is the subject of an edge's question to a region.
func Auth(region, edge string) string { return "usher.v1.auth." + region + "." + edge }

// AuthOf is what the workers of a region listen to.
func AuthOf(region string) string { return "usher.v1.auth." + region + ".*" }

// Seats is the subject of an edge's renewals and closes.
func Seats(region, edge string) string { return "usher.v1.seats." + region + "." + edge }

// SeatsOf is what the workers of a region listen to for renewals and closes.
func SeatsOf(region string) string { return "usher.v1.seats." + region + ".*" }

// Playlist is the subject of an edge's request for a subscriber's playlist.
func Playlist(region, edge string) string { return "usher.v1.playlist." + region + "." + edge }

// PlaylistOf is what the workers of a region listen to for playlists.
func PlaylistOf(region string) string { return "usher.v1.playlist." + region + ".*" }

// Journal is the subject of an entry that an edge or worker reports.
func Journal(region, edge, kind string) string {
	return "usher.v1.journal." + region + "." + edge + "." + kind
}

// JournalStream is the region's own journal stream.
func JournalStream(region string) string { return "USHER_JOURNAL_" + region }

// JournalOf is what a region's journal stream captures.
func JournalOf(region string) string { return "usher.v1.journal." + region + ".>" }

// DomainAPI is the prefix of the JetStream API of a region, as the others reach it.
func DomainAPI(region string) string { return "$JS." + region + ".API" }

// Control is the subject of one control message; key makes it last-per-subject.
func Control(kind, key string) string { return "usher.v1.control." + kind + "." + key }

// Event is the subject of live events of a kind.
func Event(kind string) string { return "usher.v1.event." + kind }

// EdgeProjectionKey is the key of a named edge's projection.
func EdgeProjectionKey(edge string) string { return "edge." + edge }
