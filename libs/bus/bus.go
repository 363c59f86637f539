// Package bus is the one way of Usher's processes to each other: questions and
// renewals as request/reply, what edges report and what is broadcast through
// JetStream, and the policy through NATS KV. Subjects, streams and buckets come from
// schemas/nats; README.md tells what each of them promises and what each error means.
//
// A process has one Conn. It connects by itself, for ever; nothing is buffered while
// it is away, since a stale question is worse than a failed one.
package bus

import "errors"

// What a request can end with besides its reply. The three first are different
// faults with different cures; the caller's context errors come through as they are.
var (
	// ErrNoWorker means that nobody listens in the asked region. It comes at once.
	ErrNoWorker = errors.New("no worker in the region")
	// ErrTimeout means that no reply came before the deadline: the worker may have
	// decided all the same.
	ErrTimeout = errors.New("no reply before the deadline")
	// ErrDisconnected means that there is no connection to NATS, or that it was lost
	// while waiting: then the worker may have decided all the same.
	ErrDisconnected = errors.New("not connected to NATS")
	// ErrMalformed means that what came is not the message that the subject promises.
	ErrMalformed = errors.New("malformed message")
)

var (
	// ErrStale is PutPolicy's refusal: a newer revision is in force, or another text
	// under the same number.
	ErrStale = errors.New("a newer policy revision is in force")
	// ErrRevoked is PublishDirective's refusal: the control stream holds the directive's
	// revocation, which is final.
	ErrRevoked = errors.New("the directive has been revoked")
	// ErrMoved is returned by the function given to ReadJournal when the stored
	// position is not the batch's After: somebody else has advanced it. The reader
	// then asks for the position again and goes on from there.
	ErrMoved = errors.New("journal position has moved")
	// ErrPermission is given to Config.OnFault when the server refuses a subject: the
	// process will not work until its permissions are mended.
	ErrPermission = errors.New("NATS permission denied")
	// ErrSlowConsumer is given to Config.OnFault when messages were dropped because
	// this process didn't take them in time.
	ErrSlowConsumer = errors.New("NATS slow consumer")
)
