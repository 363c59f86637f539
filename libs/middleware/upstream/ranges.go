package upstream

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	nethttp "net/http"
	"strings"
	"time"

	"usher.internal/libs/access"
)

// ranges reads how far into the archive a yes lets the viewer go: allowed_dvr_ranges of the JSON
// object in its body (spec flussonic §9). A body of another kind says nothing; where JSON was promised
// and does not come in time, nothing of the archive is open.
func (*Client) ranges(resp *nethttp.Response, reply *Reply) {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // "" where there is none
	isJSON := kind == "application/json" || strings.HasSuffix(kind, "+json")
	if !isJSON && (resp.ContentLength <= 0 || resp.ContentLength > MaxBody) {
		return
	}
	late := time.AfterFunc(rangesTime, func() { _ = resp.Body.Close() })
	defer late.Stop()
	r := bufio.NewReader(io.LimitReader(resp.Body, MaxBody+1))
	first, err := r.Peek(1)
	for err == nil && strings.ContainsAny(string(first), spaces) {
		_, _ = r.Discard(1) // it was there to be looked at
		first, err = r.Peek(1)
	}
	switch {
	case errors.Is(err, io.EOF), err == nil && first[0] != '{', err != nil && !isJSON:
		return
	case err != nil:
		reply.Reach = access.None()
		return
	}
	body, err := io.ReadAll(r)
	if err != nil {
		reply.Reach = access.None() // they may stand in what did not come
		return
	}
	reply.Reach = ReadRanges(body)
}

// rangesTime is how long a body is waited for: the yes itself stands in the headers.
const rangesTime = 250 * time.Millisecond

// ReadRanges reads allowed_dvr_ranges out of an answer's body, nil if they are not there or the
// body is no JSON object. What stands there and cannot be understood opens nothing.
func ReadRanges(body []byte) *access.Reach {
	var answer struct {
		Ranges json.RawMessage `json:"allowed_dvr_ranges"`
	}
	if len(body) > MaxBody {
		return access.None() // it may stand behind the end of what was read
	}
	if err := json.Unmarshal(body, &answer); err != nil && answer.Ranges == nil {
		return nil
	}
	if answer.Ranges == nil || bytes.Equal(answer.Ranges, []byte("null")) {
		return nil
	}
	var list []struct {
		Opened *int64 `json:"opened_at"`
		Closed *int64 `json:"closed_at"`
	}
	if err := json.Unmarshal(answer.Ranges, &list); err != nil {
		return access.None()
	}
	out := access.None()
	for _, r := range list {
		w, err := access.NewWindow(value(r.Opened), value(r.Closed))
		if err != nil || r.Opened != nil && *r.Opened == 0 || r.Closed != nil && *r.Closed == 0 {
			continue
		}
		if out.Windows = append(out.Windows, w); len(out.Windows) == maxRanges {
			break
		}
	}
	return out
}

// maxRanges bounds the windows of one answer; those beyond it are left out, which opens less.
const maxRanges = 64

func value(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}
