package flussonic

import (
	"context"
	"net/http"
	"net/url"

	"usher.internal/services/edge/internal/control"
)

// Kick implements control.Server. Servers before version 21 have no such call.
func (s *Server) Kick(ctx context.Context, id string) error {
	element, ok := control.Segment(id)
	if !ok {
		return control.ErrGone
	}
	return s.client.Do(ctx, control.Call{Method: http.MethodDelete, Path: sessions + "/" + element})
}

// Reauth implements control.Reauther: the server asks us about every viewer of the stream.
func (s *Server) Reauth(ctx context.Context, stream string) error {
	return s.client.Do(ctx, control.Call{
		Method: http.MethodPost, Path: sessions + "/reauth", Query: url.Values{"name": {stream}}.Encode(),
	})
}
