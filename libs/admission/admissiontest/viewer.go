package admissiontest

import (
	"net/netip"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
)

// Viewer is somebody who opens streams, with defaults that a test changes.
type Viewer struct {
	User, Device string
	Limit        int
	Mode         access.Mode
}

// Open makes an item that opens a stream for the viewer; change edits it.
func (v Viewer) Open(stream string, change ...func(*admission.Open)) admission.Item {
	o := &admission.Open{
		Record: Record(v.User, stream), Reason: access.Granted, Session: newID(),
		Key: key("session", v.User, v.Device, stream), Subject: key("subject", v.User), Token: key("token", v.User),
		Device: v.Device, Limit: v.Limit, Mode: v.Mode, Seat: time.Hour, Lease: 30 * time.Minute,
	}
	for _, f := range change {
		f(o)
	}
	return admission.Item{Open: o}
}

// Record is an audit record of a user on a stream, with a new id.
func Record(user, stream string) admission.Record {
	return admission.Record{
		ID: newID(), Region: "r1", Edge: "e1", Node: "n1", Caller: "astra", Stream: stream, Realm: "main", User: user,
		IP: netip.MustParseAddr("192.0.2.7"), UserAgent: "test/1", Revision: 1, Duration: time.Millisecond,
		Steps: []access.Step{{Name: "rule", Result: "match", Micros: 3}},
	}
}

func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

func key(parts ...string) access.Key {
	k, err := access.NewKeyer(make([]byte, access.ClusterKeySize))
	if err != nil {
		panic(err) // the size is right by construction
	}
	return k.Key(parts...)
}
