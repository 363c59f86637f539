package telemetry

// Convention. Every name of a log attribute, span attribute, span and metric stands
// in this file, with a sentence, under the heading of the package that uses it.
//
//   - Log attributes, span attributes and labels: snake_case, one word for one thing
//     everywhere (the words of package access). Names with dots are OpenTelemetry's own.
//   - Metrics: usher_<package>_<what>_<unit>, counters end in _total, seconds not
//     milliseconds. They are functions, so that nobody can change one.
//   - Labels have few values, known beforehand: never a stream, user, token, address,
//     session or free text.
//   - Spans: "<verb> <thing>", constant text; what varies is an attribute.
//   - Secrets (tokens, queries, passwords) are nowhere; a token is told by its
//     fingerprint (access.Keyer.Fingerprint).

// Attributes of logs and spans, used everywhere.
const (
	// Service is the name of the process's role: edge, worker, recorder, usher.
	Service = "service"
	// Error is what went wrong, as text.
	Error = "error"
	// TraceID is the trace of the request that a log line belongs to, in hex.
	TraceID = "trace_id"
	// SpanID is the span within the trace, in hex.
	SpanID = "span_id"
	// Region is the region that is meant.
	Region = "region"
	// Edge is the name of an edge.
	Edge = "edge"
	// Node is the name of a streaming server as the policy lists it.
	Node = "node"
	// Caller is the kind of a streaming server: astra, nginx …
	Caller = "caller"
	// Kind tells apart what a component handles, by the component's own words.
	Kind = "kind"
	// Result is how something ended, as a short code.
	Result = "result"
	// Revision is the number of a policy revision.
	Revision = "revision"
	// Attempt counts tries of the same thing, from 1.
	Attempt = "attempt"
	// Address is where something listens or connects to, without credentials.
	Address = "address"
	// Count is how many things a line is about.
	Count = "count"
	// Bad is how many of them could not be understood.
	Bad = "bad"
	// File is a path on the machine that says so.
	File = "file"
	// Age is how old something is, or how long ago it was.
	Age = "age"
	// Panic is the value of a recovered panic; Stack is where it came from.
	Panic = "panic"
	// Stack is a goroutine's stack.
	Stack = "stack"
)

// Of package lifecycle.
const (
	// Task is the name of a task of the lifecycle runner.
	Task = "task"
)

// Of package bus: attributes.
const (
	// Subject is a NATS subject; in spans only its template.
	Subject = "subject"
	// NATSStream is the name of a JetStream stream or bucket (never a viewer's stream).
	NATSStream = "nats_stream"
	// Sequence is a position in a JetStream stream.
	Sequence = "sequence"
	// Lost is how many entries can no longer be read.
	Lost = "lost"
	// QueueWait is how long a request waited in a worker's queue, in seconds.
	QueueWait = "queue_wait"
	// MessagingSystem is OpenTelemetry's name of the broker's kind; always NATS.
	MessagingSystem = "messaging.system"
	// RPCSystem is OpenTelemetry's name of the request/reply protocol; always NATS.
	RPCSystem = "rpc.system"
	// DestinationTemplate is OpenTelemetry's name of the subject with placeholders.
	DestinationTemplate = "messaging.destination.template"
	// ConsumerGroup is OpenTelemetry's name of the queue group.
	ConsumerGroup = "messaging.consumer.group.name"
	// BatchCount is OpenTelemetry's name of how many messages one span is about.
	BatchCount = "messaging.batch.message_count"
	// NATS is the value of MessagingSystem and RPCSystem.
	NATS = "nats"
)

// Of package bus: spans. Subjects stand with their placeholders, never with names.
const (
	// SpanRequestAuth is an edge's one attempt to ask a worker.
	SpanRequestAuth = "request usher.v1.auth.{region}.{edge}"
	// SpanProcessAuth is a worker's handling of a question.
	SpanProcessAuth = "process usher.v1.auth.{region}.{edge}"
	// SpanRequestSeats is an edge's renewals and closes.
	SpanRequestSeats = "request usher.v1.seats.{region}.{edge}"
	// SpanProcessSeats is a worker's handling of renewals and closes.
	SpanProcessSeats = "process usher.v1.seats.{region}.{edge}"
	// SpanRequestPlaylist is an edge's request for a subscriber's playlist.
	SpanRequestPlaylist = "request usher.v1.playlist.{region}.{edge}"
	// SpanProcessPlaylist is a worker's writing of one.
	SpanProcessPlaylist = "process usher.v1.playlist.{region}.{edge}"
	// SpanSendJournal is the publication of one journal entry until it is acknowledged.
	SpanSendJournal = "send usher.v1.journal.{region}.{edge}.{kind}"
	// SpanSendControl is the publication of one control message until it is acknowledged.
	SpanSendControl = "send usher.v1.control.{kind}.{key}"
)

// BusRequests counts requests that an edge sent, by kind (auth, seats) and result
// (decided, busy, late, clock, internal, no_worker, timeout, disconnected, canceled, error).
func BusRequests() Metric {
	return Metric{Name: "usher_bus_requests_total", Labels: []string{Kind, Result},
		Help: "Requests sent to workers, by kind and result."}
}

// BusRequestSeconds is how long they took, by kind.
func BusRequestSeconds() Metric {
	return Metric{Name: "usher_bus_request_seconds", Labels: []string{Kind},
		Help: "Time from sending a request to its reply or failure, in seconds."}
}

// BusServed counts requests that a worker answered, by kind and result (handled,
// busy, late, malformed, panic).
func BusServed() Metric {
	return Metric{Name: "usher_bus_served_total", Labels: []string{Kind, Result},
		Help: "Requests answered by this worker, by kind and result."}
}

// BusQueueSeconds is how long requests waited for a place in the worker's pool, by kind.
func BusQueueSeconds() Metric {
	return Metric{Name: "usher_bus_queue_seconds", Labels: []string{Kind},
		Help: "Time a request waited in this worker's queue, in seconds."}
}

// BusConnected is 1 while the process is connected to NATS, else 0.
func BusConnected() Metric {
	return Metric{Name: "usher_bus_connected",
		Help: "1 while the process is connected to NATS."}
}

// BusFaults counts errors that the connection reported outside of any request, by
// kind (permission, slow_consumer, disconnect, other).
func BusFaults() Metric {
	return Metric{Name: "usher_bus_faults_total", Labels: []string{Kind},
		Help: "Errors of the NATS connection outside of any request, by kind."}
}

// BusFollowerRestarts counts how often a reader of a stream had to start anew, by
// kind (control, journal, policy, projection).
func BusFollowerRestarts() Metric {
	return Metric{Name: "usher_bus_follower_restarts_total", Labels: []string{Kind},
		Help: "How often a stream's reader had to be started anew, by kind."}
}

// Of services worker and recorder: attributes.
const (
	// Outcome is what the viewer gets: allow, deny or redirect.
	Outcome = "outcome"
	// Reason is the one code that says why.
	Reason = "reason"
	// Repeated says that an earlier row stands for the answer.
	Repeated = "repeated"
	// Check is the name of a verifier or middleware as the policy names it.
	Check = "check"
	// Rule is the name of an own rule, or the place of a condition in the policy (streams[2].when).
	Rule = "rule"
	// State is the state of a check (idle, up, failing, open) or of a control API.
	State = "state"
	// Worker is the name of a worker.
	Worker = "worker"
	// Cause is the error that led to the one in Error.
	Cause = "cause"
	// Used is how full a volume is, 0 to 1.
	Used = "used"
	// Partition is a partition of history.
	Partition = "partition"
	// Bytes is how many there were.
	Bytes = "bytes"
	// Gap is how long nobody swept the seats.
	Gap = "gap"
)

// Of service worker: spans.
const (
	// SpanLedgerCommit is a question's wait for the group commit that holds its seat and row.
	SpanLedgerCommit = "ledger commit"
)

// WorkerAnswers counts a worker's answers, by outcome (allow, deny, redirect, or the
// status of an answer that decides nothing: clock, internal) and reason.
func WorkerAnswers() Metric {
	return Metric{Name: "usher_worker_answers_total", Labels: []string{Outcome, Reason},
		Help: "Answers of the workers, by outcome and reason."}
}

// WorkerAnswerSeconds is how long they took in the worker, by outcome.
func WorkerAnswerSeconds() Metric {
	return Metric{Name: "usher_worker_answer_seconds", Labels: []string{Outcome},
		Help: "Time from taking up a question to its answer, in seconds."}
}

// WorkerCheckSeconds is how long verifiers and middlewares took, by check and result.
func WorkerCheckSeconds() Metric {
	return Metric{Name: "usher_worker_check_seconds", Labels: []string{Check, Result},
		Help: "Time that a check took, by its name in the policy and its result, in seconds."}
}

// WorkerCommitSeconds is how long the ledger's calls took, by result (committed, failed).
func WorkerCommitSeconds() Metric {
	return Metric{Name: "usher_worker_commit_seconds", Labels: []string{Result},
		Help: "Time of one group commit, in seconds."}
}

// WorkerCommitItems is how many items went down in one call of the ledger.
func WorkerCommitItems() Metric {
	return Metric{Name: "usher_worker_commit_items", Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256},
		Help: "Items in one group commit."}
}

// WorkerCheckState says, by worker and check, in which state the check is: 1 for that one of
// idle, up, failing and open, 0 for the others.
func WorkerCheckState() Metric {
	return Metric{Name: "usher_worker_check_state", Labels: []string{Worker, Check, State},
		Help: "1 for the state that a check is in: idle (not asked yet), up, failing, open (its breaker keeps it from being asked)."}
}

// WorkerSeats counts signs of life, by result (live, ended, bad, malformed, foreign, unavailable).
func WorkerSeats() Metric {
	return Metric{Name: "usher_worker_seats_total", Labels: []string{Result},
		Help: "Renewals and closes of sessions, by what became of them."}
}

// WorkerUncounted counts decisions made while the ledger was away, by result (allow,
// deny, redirect; lost: not even journaled, so that the edge decided).
func WorkerUncounted() Metric {
	return Metric{Name: "usher_worker_uncounted_total", Labels: []string{Result},
		Help: "Decisions made while the ledger was away, by outcome; lost ones were left to the edge."}
}

// WorkerControl counts control messages of this worker, by result (published, failed,
// left: no room; the recorder publishes the two latter).
func WorkerControl() Metric {
	return Metric{Name: "usher_worker_control_total", Labels: []string{Result},
		Help: "Ended sessions told to the edges at once, by result."}
}

// WorkerPolicyRejected counts revisions that could not be used.
func WorkerPolicyRejected() Metric {
	return Metric{Name: "usher_worker_policy_rejected_total",
		Help: "Policy revisions that could not be used; the old one stayed in force."}
}

// WorkerPolicyRevision is the revision in force, by worker.
func WorkerPolicyRevision() Metric {
	return Metric{Name: "usher_worker_policy_revision", Labels: []string{Worker},
		Help: "The policy revision in force, by worker."}
}

// WorkerRuleFailures counts expressions of the policy that gave no answer, by the rule's name.
func WorkerRuleFailures() Metric {
	return Metric{Name: "usher_worker_rule_failures_total", Labels: []string{Rule},
		Help: "Expressions of the policy that gave no answer (too costly, or a division by zero), by the rule's name: it denies, or does not allow."}
}

// WorkerPolicyBlind says, by worker, whether the policy looks at countries or operators of
// addresses and no database tells them.
func WorkerPolicyBlind() Metric {
	return Metric{Name: "usher_worker_policy_blind", Labels: []string{Worker},
		Help: "1 while the policy has rules on country or asn and there is no database: they match nothing."}
}

// GeoDatabases is how many country databases a process looks into.
func GeoDatabases() Metric {
	return Metric{Name: "usher_geo_databases", Help: "Country databases that are loaded."}
}

// GeoBuilt is when the oldest of them was made.
func GeoBuilt() Metric {
	return Metric{Name: "usher_geo_built_timestamp_seconds",
		Help: "When the oldest loaded country database was made, as Unix time; 0 without any. Its age says when to renew it."}
}

// WorkerKeysFetched is when the keys of a check of type jwt were read last, by check: their age is
// time() minus this.
func WorkerKeysFetched() Metric {
	return Metric{Name: "usher_worker_keys_fetched_timestamp_seconds", Labels: []string{Check},
		Help: "When the keys of a jwt check were read last, by check."}
}

// RecorderRows counts journal entries, by kind (decision, uncounted, repeats) and result
// (stored; overridden: replaced a worker's row; duplicate; bad: Postgres refused the row;
// malformed; foreign: another edge's node).
func RecorderRows() Metric {
	return Metric{Name: "usher_recorder_rows_total", Labels: []string{Kind, Result},
		Help: "Journal entries, by kind and what became of them."}
}

// RecorderBatchSeconds is how long recording a batch took, by result (stored, moved, failed).
func RecorderBatchSeconds() Metric {
	return Metric{Name: "usher_recorder_batch_seconds", Labels: []string{Result},
		Help: "Time of recording one batch of the journal, in seconds."}
}

// RecorderLagSeconds is how old the last entry was when it was recorded, by region.
func RecorderLagSeconds() Metric {
	return Metric{Name: "usher_recorder_lag_seconds", Labels: []string{Region},
		Help: "Age of the last journal entry at the time of its recording, in seconds."}
}

// RecorderSwept counts seats that ended since nobody renewed them.
func RecorderSwept() Metric {
	return Metric{Name: "usher_recorder_seats_expired_total",
		Help: "Seats that ended since nobody renewed them."}
}

// RecorderSoft counts sessions that were ended since they were beyond a soft limit for too long.
func RecorderSoft() Metric {
	return Metric{Name: "usher_recorder_soft_ended_total",
		Help: "Sessions that were ended since they were beyond a soft limit for too long."}
}

// RecorderGapSeconds counts the time during which nobody swept; it was added to the seats.
func RecorderGapSeconds() Metric {
	return Metric{Name: "usher_recorder_sweep_gap_seconds_total",
		Help: "Time during which nobody swept the seats, in seconds; it was added to every seat."}
}

// RecorderOutbox is how many control messages the last look found waiting.
func RecorderOutbox() Metric {
	return Metric{Name: "usher_recorder_outbox_left",
		Help: "Control messages that the workers had left in the outbox, at the last look."}
}

// RecorderControl counts control messages published by the recorder, by result (published, failed).
func RecorderControl() Metric {
	return Metric{Name: "usher_recorder_control_total", Labels: []string{Result},
		Help: "Control messages that the workers had left, by result."}
}

// RecorderDiskUsed is how full the volume of Postgres is, where a recorder watches it.
func RecorderDiskUsed() Metric {
	return Metric{Name: "usher_recorder_disk_used_ratio",
		Help: "Used share of the volume on which Postgres lies, 0 to 1; from 0.8 on the oldest history goes early."}
}

// RecorderDroppedEarly counts days of history that were dropped before their retention was over.
func RecorderDroppedEarly() Metric {
	return Metric{Name: "usher_recorder_dropped_early_total",
		Help: "Partitions of history that were dropped early since the disk of Postgres filled."}
}

// RecorderFaults counts rounds that failed, by task (policy, outbox, sweep, maintain, journal).
func RecorderFaults() Metric {
	return Metric{Name: "usher_recorder_faults_total", Labels: []string{Task},
		Help: "Rounds of the recorder's tasks that failed, by task."}
}

// Of service edge: attributes.
const (
	// Memory says that an answer came from memory, without a question to a worker.
	Memory = "memory"
)

// Of service edge: spans. "HTTP" stands for methods that are not HTTP's own.
const (
	// SpanQuestion follows the method in the span of a caller's question; what stands
	// below the node in the URL is left out.
	SpanQuestion = " /v1/{caller}/{node}"
	// SpanEvents is an edge's taking in of what a node tells of its sessions.
	SpanEvents = "POST /v1/{caller}/{node}/events"
)

// EdgeAnswers counts answers to callers, by caller, outcome and reason.
func EdgeAnswers() Metric {
	return Metric{Name: "usher_edge_answers_total", Labels: []string{Caller, Outcome, Reason},
		Help: "Answers to callers, by caller, outcome and reason."}
}

// EdgeAnswerSeconds is how long callers waited, by caller.
func EdgeAnswerSeconds() Metric {
	return Metric{Name: "usher_edge_answer_seconds", Labels: []string{Caller},
		Help: "Time from a caller's question to its answer, in seconds."}
}

// EdgeMemoryAnswers counts answers that needed no worker: of a running session
// under its lease, or a denial of the last second.
func EdgeMemoryAnswers() Metric {
	return Metric{Name: "usher_edge_memory_answers_total", Labels: []string{Caller},
		Help: "Answers given from memory, by caller."}
}

// EdgeQuestions counts questions that were put to workers, whatever the attempts, by
// result (decided, failed: the fail mode had to decide).
func EdgeQuestions() Metric {
	return Metric{Name: "usher_edge_questions_total", Labels: []string{Result},
		Help: "Questions put to workers, by result."}
}

// EdgeFailModes counts questions that no worker answered in time, by the rule's fail mode
// (kind) and what it gave.
func EdgeFailModes() Metric {
	return Metric{Name: "usher_edge_fail_mode_total", Labels: []string{Kind, Outcome},
		Help: "Questions decided by a fail mode, by mode and outcome."}
}

// EdgePlaylists counts playlists that were asked for, by what was answered.
func EdgePlaylists() Metric {
	return Metric{Name: "usher_edge_playlists_total", Labels: []string{Result},
		Help: "Playlists that were asked for, by what was answered."}
}

// EdgeEvents counts events that nodes sent, by caller and by what came of them: taken, ignored (of no
// session), bad (not understood), and whole deliveries that were refused or were told to come again (busy).
func EdgeEvents() Metric {
	return Metric{Name: "usher_edge_events_total", Labels: []string{Caller, Result},
		Help: "Events that nodes sent, by what came of them; whole deliveries where refused or busy."}
}

// EdgeReports counts what nodes said of their sessions otherwise than by asking, by caller
// and by what came of it (opened, alive, stopped, overtaken, stale, by_key, unknown, unasked).
func EdgeReports() Metric {
	return Metric{Name: "usher_edge_reports_total", Labels: []string{Caller, Result},
		Help: "What nodes said of their sessions otherwise than by asking, by what came of it."}
}

// EdgePanics counts panics while answering; each was answered with a refusal.
func EdgePanics() Metric {
	return Metric{Name: "usher_edge_panics_total",
		Help: "Panics while answering a question; each was answered with a refusal."}
}

// EdgeSessions is the number of sessions in the edge's table.
func EdgeSessions() Metric {
	return Metric{Name: "usher_edge_sessions", Help: "Sessions that this edge knows."}
}

// EdgeSeatsLagSeconds is how long signs of life could not be told to a worker.
func EdgeSeatsLagSeconds() Metric {
	return Metric{Name: "usher_edge_seats_lag_seconds",
		Help: "How long signs of life could not be told to any worker, in seconds; 0 when they are."}
}

// EdgeSeatsWaiting is the number of closes that no worker has taken yet.
func EdgeSeatsWaiting() Metric {
	return Metric{Name: "usher_edge_seats_waiting", Help: "Closes that no worker has taken yet."}
}

// EdgeJournalBacklog is the number of journal entries that are not stored yet.
func EdgeJournalBacklog() Metric {
	return Metric{Name: "usher_edge_journal_backlog", Help: "Journal entries that are not stored yet."}
}

// EdgeLost counts what found no room in a bounded queue and was dropped, by kind
// (journal, close, repeat).
func EdgeLost() Metric {
	return Metric{Name: "usher_edge_lost_total", Labels: []string{Kind},
		Help: "What found no room in a bounded queue and was dropped, by kind."}
}

// EdgeStateFailing is 1 while the file beside the edge cannot be written.
func EdgeStateFailing() Metric {
	return Metric{Name: "usher_edge_state_failing",
		Help: "1 while the file beside the edge cannot be written: a restart would forget what has changed."}
}

// EdgeCutOff is 1 while no tick of the control stream has come for 3 s.
func EdgeCutOff() Metric {
	return Metric{Name: "usher_edge_cut_off",
		Help: "1 while no tick of the control stream has come for 3 s: kills may not arrive."}
}

// EdgePolls counts lists of sessions that nodes were asked for, by caller and whether they were whole
// (whole, failed).
func EdgePolls() Metric {
	return Metric{Name: "usher_edge_polls_total", Labels: []string{Caller, Result},
		Help: "Lists of sessions that nodes were asked for, by whether they were whole."}
}

// EdgeKicks counts sessions that were to be ended at their nodes, by caller and what came of it (sent,
// confirmed, gone, retried, failed, dropped).
func EdgeKicks() Metric {
	return Metric{Name: "usher_edge_kicks_total", Labels: []string{Caller, Result},
		Help: "Sessions that were to be ended at their nodes, by what came of it."}
}

// EdgeReauths counts streams about whose viewers nodes were told to ask anew, by caller and what came
// of it (sent, failed).
func EdgeReauths() Metric {
	return Metric{Name: "usher_edge_reauths_total", Labels: []string{Caller, Result},
		Help: "Streams about whose viewers nodes were told to ask anew, since their rule has changed."}
}

// EdgeUnaskedSessions is how many sessions play at a node without ever having asked.
func EdgeUnaskedSessions() Metric {
	return Metric{Name: "usher_edge_unasked_sessions", Labels: []string{Node},
		Help: "Sessions that play at a node without ever having asked: free television."}
}

// EdgeControlState is 1 for the state in which a node's control API is (works, unproven, fails, idle).
func EdgeControlState() Metric {
	return Metric{Name: "usher_edge_control_state", Labels: []string{Node, State},
		Help: "1 for the state in which a node's control API is."}
}

// EdgePolicyRevision is the policy revision by which the edge reads questions.
func EdgePolicyRevision() Metric {
	return Metric{Name: "usher_edge_policy_revision", Help: "The policy revision in force at this edge."}
}
