package flussonic

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"usher.internal/services/edge/internal/control"
)

const (
	sessions       = "/streamer/api/v3/sessions"
	legacySessions = "/flussonic/api/sessions"
	// pageSize is how many sessions one call is asked for.
	pageSize = "1000"
	// maxPages bounds a list whose cursors never end.
	maxPages  = 1000
	maxCursor = 4096
)

// row is a session as any generation lists it.
type row struct {
	ID        control.Value `json:"id"`
	SessionID control.Value `json:"session_id"`
	Name      control.Value `json:"name"`
	Media     control.Value `json:"media"`
	Type      control.Value `json:"type"`
	Status    control.Value `json:"status"`
	IP        control.Value `json:"ip"`
	Token     control.Value `json:"token"`
	UserID    control.Value `json:"user_id"`
	UserAgent control.Value `json:"user_agent"`
	Country   control.Value `json:"country"`
	Bytes     control.Value `json:"bytes"`
	BytesSent control.Value `json:"bytes_sent"`
	OpenedAt  control.Value `json:"opened_at"`
	CreatedAt control.Value `json:"created_at"`
	ClosedAt  control.Value `json:"closed_at"`
}

// List implements control.Server.
func (s *Server) List(ctx context.Context, take func(*control.Session)) (control.Summary, error) {
	if !s.legacy.Load() {
		sum, err := s.pages(ctx, take)
		if !errors.Is(err, control.ErrGone) {
			return sum, err
		}
	}
	sum := control.Summary{Pages: 1}
	_, err := s.page(ctx, legacySessions, "", &sum, take)
	// Where both are missing the newer one is tried again: it may only have been starting.
	s.legacy.Store(err == nil)
	return sum, err
}

// pages reads the list page by page.
func (s *Server) pages(ctx context.Context, take func(*control.Session)) (control.Summary, error) {
	var sum control.Summary
	cursor := ""
	for sum.Pages < maxPages {
		sum.Pages++
		q := url.Values{"limit": {pageSize}}
		if cursor != "" {
			q.Set("cursor", cursor)
		}
		next, err := s.page(ctx, sessions, q.Encode(), &sum, take)
		if err != nil {
			return sum, err
		}
		if next == "" || next == cursor {
			return sum, nil
		}
		cursor = next
	}
	return sum, control.ErrTooLong
}

func (s *Server) page(ctx context.Context, path, query string, sum *control.Summary, take func(*control.Session)) (next string, err error) {
	one := func(r *row) {
		if sum.Rows++; sum.Rows > control.MaxRows {
			return
		}
		if v, ok := r.session(); ok {
			take(v)
		} else if r.plays() {
			sum.Bad++
		}
	}
	err = s.client.Do(ctx, control.Call{
		Method: http.MethodGet, Path: path, Query: query,
		Read: func(body io.Reader) error {
			rest, bad, err := control.Rows(body, "sessions", one)
			sum.Bad += bad
			if err != nil {
				return err
			}
			var ok bool
			if next, ok = rest["next"].Opaque(maxCursor); !ok || sum.Rows > control.MaxRows {
				return control.ErrTooLong
			}
			return nil
		},
	})
	return next, err
}

// plays says whether the session is a viewer's: publishers are none of ours.
func (r *row) plays() bool {
	t := r.Type.Label()
	return t != "publish" && t != "ingest"
}

// session is the row in our words; ok is false if it is no viewer's, or not one to be known by.
func (r *row) session() (s *control.Session, ok bool) {
	s = &control.Session{
		ID: first(r.ID, r.SessionID).ID(), Stream: first(r.Name, r.Media).ID(), Token: r.Token.ID(),
		User: r.UserID.Label(), UserAgent: r.UserAgent.Label(), Country: r.Country.Country(), IP: r.IP.IP(),
		Opened: first(r.OpenedAt, r.CreatedAt).Time(), Bytes: first(r.Bytes, r.BytesSent).Int(),
	}
	closed := r.ClosedAt.Time()
	s.Ended = r.Status.Label() == "finished" || !closed.IsZero()
	if now := time.Now(); !s.Opened.IsZero() {
		s.Age = max(now.Sub(s.Opened), 0)
		s.Playing = s.Age
		if s.Ended {
			s.Playing = max(closed.Sub(s.Opened), 0)
		}
	}
	return s, s.ID != "" && r.plays()
}

// first is the first of two that says something.
func first(a, b control.Value) control.Value {
	if a.Label() != "" {
		return a
	}
	return b
}
