package astra

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"usher.internal/services/edge/internal/control"
)

// Kick implements control.Server. An id is written as the lists of this Astra write it: as a text
// (today's documents) or a number (those of 2018).
func (s *Server) Kick(ctx context.Context, id string) error {
	command := struct {
		Cmd string `json:"cmd"`
		ID  any    `json:"id"`
	}{"close-session", id}
	if n, err := strconv.ParseUint(id, 10, 64); err == nil && s.numeric.Load() && strconv.FormatUint(n, 10) == id {
		command.ID = n
	}
	body, err := json.Marshal(command)
	if err != nil {
		return err // a text and a number can always be written
	}
	return s.client.Do(ctx, control.Call{Method: http.MethodPost, Path: path, Body: body})
}
