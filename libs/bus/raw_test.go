package bus_test

import (
	"testing"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"usher.internal/schemas/proto/usherv1"
)

// raw is a client that doesn't know our rules.
func raw(t *testing.T, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func decode(t *testing.T, m *nats.Msg) *usherv1.AuthReply {
	t.Helper()
	r := new(usherv1.AuthReply)
	if err := proto.Unmarshal(m.Data, r); err != nil {
		t.Fatalf("reply %q: %v", m.Data, err)
	}
	return r
}
