package viewing_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

const publishedPolicy = `
version: 1
defaults: {lease: 90s, idle: 60s}
nodes:
  fl1: {caller: flussonic, from: [127.0.0.1], budget: 10s}
checks:
  site: {type: securetoken, secret: "@SECRET@", salt_length: 16, check_ip: false}
streams:
  - {match: "**", auth: site, limit: {sessions: 2, by: user, mode: refuse}}
`

// authRequest is what a Flussonic sends, field by field as its OpenAPI description publishes request_v1:
// this client is written from that page alone, and so is authAnswer.
type authRequest struct {
	Name          string `json:"name"`
	Proto         string `json:"proto"`
	IP            string `json:"ip"`
	RequestType   string `json:"request_type"`
	RequestNumber int    `json:"request_number"`
	SessionID     string `json:"session_id"`
	StreamClients int    `json:"stream_clients"`
	TotalClients  int    `json:"total_clients"`
	Token         string `json:"token,omitempty"`
	Duration      int    `json:"duration,omitempty"`
	Bytes         int64  `json:"bytes,omitempty"`
	QS            string `json:"qs,omitempty"`
	DVR           *bool  `json:"dvr,omitempty"`
	UserAgent     string `json:"user_agent,omitempty"`
	Referer       string `json:"referer,omitempty"`
	Host          any    `json:"host,omitempty"`
}

// authAnswer is what the page lets a backend answer.
type authAnswer struct {
	Status       int
	AuthDuration int // 0: not sent
	UserID       string
	MaxSessions  int
	Location     string
	Errors       []struct {
		Status string `json:"status"`
		Code   string `json:"code"`
		Title  string `json:"title"`
	}
}

// onPlay puts the question as on_play does: a GET with every field in the query.
func (q *authRequest) onPlay(t *testing.T, client *http.Client, backend string) authAnswer {
	t.Helper()
	text, err := json.Marshal(q)
	must(t, err)
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	var fields map[string]any
	must(t, d.Decode(&fields))
	query := url.Values{}
	for name, value := range fields {
		query.Set(name, fmt.Sprint(value))
	}
	res, err := client.Get(backend + "?" + query.Encode())
	must(t, err)
	return published(t, res)
}

// onPublish posts it as JSON.
func (q *authRequest) onPublish(t *testing.T, client *http.Client, backend string) authAnswer {
	t.Helper()
	text, err := json.Marshal(q)
	must(t, err)
	res, err := client.Post(backend, "application/json", strings.NewReader(string(text)))
	must(t, err)
	return published(t, res)
}

// published reads an answer, and fails the test for what the page does not know.
func published(t *testing.T, res *http.Response) (a authAnswer) {
	t.Helper()
	defer func() { _ = res.Body.Close() }() // it was read
	body, err := io.ReadAll(res.Body)
	must(t, err)
	a.Status, a.UserID, a.Location = res.StatusCode, res.Header.Get("X-UserId"), res.Header.Get("Location")
	for name, into := range map[string]*int{"X-AuthDuration": &a.AuthDuration, "X-Max-Sessions": &a.MaxSessions} {
		if text := res.Header.Get(name); text != "" {
			if *into, err = strconv.Atoi(text); err != nil || *into < 0 {
				t.Errorf("%s = %q, want an integer", name, text)
			}
		}
	}
	if len(body) > 0 && !strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		t.Errorf("a body of type %q, want application/json", res.Header.Get("Content-Type"))
	}
	switch a.Status {
	case http.StatusOK:
		if len(body) > 0 {
			var r struct {
				AdInject         any `json:"ad_inject"`
				AllowedDVRRanges []struct {
					OpenedAt *int64 `json:"opened_at"`
					ClosedAt *int64 `json:"closed_at"`
				} `json:"allowed_dvr_ranges"`
			}
			strictly(t, body, &r)
		}
	case http.StatusForbidden:
		var r struct {
			Errors *json.RawMessage `json:"errors"`
		}
		strictly(t, body, &r)
		if r.Errors != nil {
			strictly(t, *r.Errors, &a.Errors)
		}
	case http.StatusFound:
		if _, err := url.ParseRequestURI(a.Location); err != nil {
			t.Errorf("a redirect to %q", a.Location)
		}
	default:
		t.Errorf("status %d, which the page does not know", a.Status)
	}
	return a
}

func strictly(t *testing.T, body []byte, into any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Errorf("the body %s is not of the published form: %v", body, err)
	}
}

// TestAPublishedFlussonicClient: a client written from Flussonic's published list of fields plays, goes
// on, asks to publish and is refused.
func TestAPublishedFlussonicClient(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 1, workers: 1, policy: publishedPolicy})
	backend, live := c.edges[0]+"/v1/flussonic/fl1", false
	ask := func(stream, token string) *authRequest {
		return &authRequest{
			Name: stream, Proto: "hls", IP: "10.77.0.150", RequestType: "new_session", SessionID: uuid.NewString(), StreamClients: 1,
			TotalClients: 2, Token: token, QS: "token=" + token + "&utm=a%20b", DVR: &live, UserAgent: "curl/7.68.0 " + stream, Referer: "http://hey.com/",
		}
	}
	play := ask("sport/hockey1", c.sign("sport/hockey1", "alice"))
	want := func(what string, a authAnswer) {
		t.Helper()
		if a.Status != http.StatusOK || a.UserID != "alice" || a.MaxSessions != 2 || a.AuthDuration < 60 || a.AuthDuration > 90 {
			t.Errorf("%s: %+v, want 200 for alice with two sessions and up to 90 s", what, a)
		}
	}
	want("new session", play.onPlay(t, c.client, backend))
	play.RequestType, play.RequestNumber, play.Duration, play.Bytes = "update_session", 1, 180, 12_345_678
	want("update", play.onPlay(t, c.client, backend))

	send := ask("cam/1", c.sign("cam/1", "alice"))
	send.Proto, send.Host = "rtmp", map[string]any{}
	if a := send.onPublish(t, c.client, backend); a.Status != http.StatusForbidden || len(a.Errors) != 1 || a.Errors[0].Code != "no_rule" {
		t.Errorf("publish: %+v, want a refusal that says that a viewer's token is no right to publish", a)
	}
	began := time.Now()
	for name, q := range map[string]*authRequest{"a forged token": ask("bbc", "forged"), "no token": ask("bbc", "")} {
		a := q.onPlay(t, c.client, backend)
		if a.Status != http.StatusForbidden || len(a.Errors) != 1 || a.Errors[0].Status != "403" || a.Errors[0].Code == "" || a.Errors[0].Title == "" {
			t.Errorf("%s: %+v, want a 403 that says why", name, a)
		}
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("refusals took %v; a Flussonic waits 3 s", took)
	}
}
