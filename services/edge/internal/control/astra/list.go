package astra

import (
	"context"
	"io"
	"net/http"

	"usher.internal/services/edge/internal/control"
)

// path of every call.
const path = "/control/"

// row is a session as Astra lists it.
type row struct {
	Client  control.Value `json:"client_id"`
	Channel control.Value `json:"channel_id"`
	Addr    control.Value `json:"addr"`
	Uptime  control.Value `json:"uptime"`
}

// List implements control.Server. It is one answer, so that it does not change while it is read.
func (s *Server) List(ctx context.Context, take func(*control.Session)) (control.Summary, error) {
	sum := control.Summary{Pages: 1}
	one := func(r *row) {
		sum.Rows++
		v, ok := r.session()
		if !ok {
			sum.Bad++
			return
		}
		s.numeric.Store(r.Client.IsNumber())
		take(v)
	}
	err := s.client.Do(ctx, control.Call{
		Method: http.MethodPost, Path: path, Body: []byte(`{"cmd":"sessions"}`),
		Read: func(body io.Reader) error {
			_, bad, err := control.Rows(body, "sessions", one)
			sum.Bad += bad
			return err
		},
	})
	return sum, err
}

// session is the row in our words; ok is false if it cannot be known by its id.
func (r *row) session() (s *control.Session, ok bool) {
	s = &control.Session{
		ID: r.Client.ID(), Stream: r.Channel.ID(), IP: r.Addr.IP(), Age: r.Uptime.Seconds(), Playing: r.Uptime.Seconds(),
	}
	return s, s.ID != ""
}
