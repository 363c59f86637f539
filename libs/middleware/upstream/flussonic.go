package upstream

import (
	"bytes"
	"encoding/json"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
)

// Field is one fact of a question, by Flussonic's name for it.
type Field struct {
	Name string
	// Value is a string, an int or a bool.
	Value any
}

// FlussonicFields is the question as Flussonic asks it (spec flussonic §1.2). What we
// do not know is left out where Flussonic may leave it out, and 0 where it may not.
func FlussonicFields(req *access.Request) []Field {
	kind, number := "new_session", 0
	if req.Session != uuid.Nil {
		kind, number = "update_session", 1
	}
	fields := []Field{{"name", req.Stream}, {"proto", protocol(req)}, {"ip", Address(req)}}
	fields = add(fields, "token", req.Token)
	fields = append(fields, Field{"request_type", kind}, Field{"request_number", number}, Field{"session_id", sessionID(req)},
		Field{"stream_clients", 0}, Field{"total_clients", 0})
	if age, ok := sessionAge(req); ok {
		fields = append(fields, Field{"duration", age})
	}
	fields = add(fields, "user_name", req.Requested)
	fields = add(fields, "qs", req.Query)
	fields = add(fields, "host", req.Host)
	fields = add(fields, "user_agent", req.UserAgent)
	fields = add(fields, "referer", req.Referer)
	if req.Archive.Kind != access.Live {
		fields = append(fields, Field{"dvr", true})
	}
	return fields
}

func add(fields []Field, name, value string) []Field {
	if value == "" {
		return fields
	}
	return append(fields, Field{name, value})
}

// protocol is Flussonic's word. A caller without one of its own is known by the file.
func protocol(req *access.Request) string {
	if req.Protocol != "" {
		return req.Protocol
	}
	switch strings.ToLower(path.Ext(req.Path)) {
	case ".mpd":
		return "dash"
	case ".mp4":
		return "mp4"
	case ".m3u8", ".ts", ".m4s", ".m4a", ".m4v", ".aac", ".vtt", ".webvtt", ".key":
		return "hls"
	}
	return "tshttp"
}

// sessionID is the caller's own id where it has the form of one, else an id made of
// the session key, which too is one for the life of a session.
func sessionID(req *access.Request) string {
	if id, err := uuid.Parse(req.CallerSession); err == nil && len(req.CallerSession) == 36 {
		return id.String()
	}
	id := uuid.UUID(req.Key)
	id[6] = id[6]&0x0f | 0x80 // version 8: made in a way of our own
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// sessionAge is how many seconds ago the running session began, by the time in its id.
func sessionAge(req *access.Request) (int, bool) {
	if req.Session.Version() != 7 {
		return 0, false
	}
	var ms int64
	for _, b := range req.Session[:6] {
		ms = ms<<8 | int64(b)
	}
	return max(0, int(req.Received.Sub(time.UnixMilli(ms))/time.Second)), true
}

// Query writes the fields as a query in which each value is one encoded value.
func Query(fields []Field) string {
	var b strings.Builder
	for i, f := range fields {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(f.Name)
		b.WriteByte('=')
		b.WriteString(Escape(text(f.Value)))
	}
	return b.String()
}

// Escape encodes a value so that every reader reads it alike: a space is %20.
func Escape(value string) string {
	return strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
}

func text(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case int:
		return strconv.Itoa(v)
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}

// JSON writes the fields as one object, in their order.
func JSON(fields []Field) string {
	var b bytes.Buffer
	for i, f := range fields {
		b.WriteByte("{,"[min(i, 1)])
		for j, part := range []any{f.Name, f.Value} {
			if j > 0 {
				b.WriteByte(':')
			}
			raw, _ := json.Marshal(part) // strings, ints and bools can always be written
			b.Write(raw)
		}
	}
	b.WriteByte('}')
	return b.String()
}
