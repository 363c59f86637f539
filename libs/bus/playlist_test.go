package bus_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"usher.internal/libs/bus"
	"usher.internal/schemas/proto/usherv1"
)

// playlists has w answer e's requests for playlists until the test ends, and asks for one.
func playlists(t *testing.T, w, e *bus.Conn) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		err := w.ServePlaylists(ctx, region, 2, 2, func(_ context.Context, asking string, req *usherv1.PlaylistRequest) *usherv1.PlaylistReply {
			if req.GetToken() == "panic" {
				panic("told to")
			}
			return &usherv1.PlaylistReply{Status: usherv1.AuthReply_STATUS_DECIDED, Name: asking, Body: []byte("list of " + req.GetToken())}
		})
		if err != nil {
			t.Errorf("ServePlaylists: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); serving.Wait() })
	var reply *usherv1.PlaylistReply
	eventually(t, 5*time.Second, "a playlist", func() bool {
		var err error
		reply, err = e.AskPlaylist(within(t, time.Second), region, edge, &usherv1.PlaylistRequest{Token: "anna"})
		return err == nil
	})
	if reply.GetName() != edge || string(reply.GetBody()) != "list of anna" {
		t.Errorf("reply = %v", reply)
	}
}

func TestPlaylists(t *testing.T) {
	t.Parallel()
	url := strictServer(t)
	w, _ := role(t, url, "w1")
	e, _ := role(t, url, edge)
	if _, err := e.AskPlaylist(within(t, time.Second), region, edge, &usherv1.PlaylistRequest{}); !errors.Is(err, bus.ErrNoWorker) {
		t.Errorf("without workers: %v, want ErrNoWorker", err)
	}
	playlists(t, w, e)
	reply, err := e.AskPlaylist(within(t, time.Second), region, edge, &usherv1.PlaylistRequest{Token: "panic"})
	if err != nil || reply.GetStatus() != usherv1.AuthReply_STATUS_INTERNAL {
		t.Errorf("a panic is answered %v, %v", reply, err)
	}
}
