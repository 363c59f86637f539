package aliaser

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"usher.internal/libs/access"
	"usher.internal/libs/middleware"
)

// maxBody is more than a name and what JSON puts around it.
const maxBody = 4 << 10

var (
	errNoName = errors.New("its answer is no name")
	errStatus = errors.New("it answered with an error")
	errBroken = errors.New("it could not be reached, or its answer is broken")
)

// upstream asks the service. Its yes carries the stream's name in User.
type upstream struct {
	base   *url.URL
	client http.RoundTripper
}

var _ middleware.Keyed = (*upstream)(nil)

// Key implements middleware.Keyed.
func (u *upstream) Key(req *access.Request) string { return req.Requested }

// Ask implements middleware.Middleware.
func (u *upstream) Ask(ctx context.Context, req *access.Request) (middleware.Answer, error) {
	resp, err := u.client.RoundTrip(u.request(ctx, req.Requested))
	if err != nil {
		return middleware.Answer{}, fault(ctx, errBroken)
	}
	defer func() { _ = resp.Body.Close() }() // read side only: nothing can be lost
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNoContent, http.StatusForbidden, http.StatusNotFound, http.StatusGone:
		return middleware.Answer{}, nil
	default: // also 3xx: a portal that sends everybody to its own page knows no names
		return middleware.Answer{}, fault(ctx, fmt.Errorf("%w: status %d", errStatus, resp.StatusCode))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return middleware.Answer{}, fault(ctx, errBroken)
	}
	name, err := parseAnswer(resp.Header.Get("Content-Type"), body)
	if err != nil {
		return middleware.Answer{}, fault(ctx, err)
	}
	return middleware.Answer{Allowed: name != "", User: name}, nil
}

func (u *upstream) request(ctx context.Context, name string) *http.Request {
	to := *u.base
	if to.RawQuery != "" {
		to.RawQuery += "&"
	}
	to.RawQuery += "name=" + url.QueryEscape(name)
	r := &http.Request{Method: http.MethodGet, URL: &to, Host: to.Host, Header: http.Header{"User-Agent": {"Usher"}}}
	return r.WithContext(ctx)
}

// parseAnswer reads a name as plain text or as {"name": "…"}; "" is none.
func parseAnswer(contentType string, body []byte) (string, error) {
	kind, _, _ := mime.ParseMediaType(contentType) // one that cannot be read is none
	text := bytes.TrimSpace(body)
	switch {
	case len(body) > maxBody, strings.HasSuffix(kind, "html"):
		return "", errNoName
	case string(text) == "false", string(text) == "null":
		return "", nil
	case strings.HasSuffix(kind, "json"), bytes.HasPrefix(text, []byte("{")):
		var answer struct {
			Name string `json:"name"`
		}
		if err := json.Unmarshal(text, &answer); err != nil {
			return "", errNoName
		}
		text = []byte(answer.Name)
	}
	name := string(text)
	if access.Clean(name, access.MaxName) != name || strings.HasPrefix(name, "/") || strings.ContainsAny(name, "<>") {
		return "", errNoName
	}
	return name, nil
}

func fault(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("%w: %w", middleware.ErrUnavailable, err)
}
