package flussonic

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"usher.internal/libs/access"
	"usher.internal/services/edge/internal/caller"
)

// maxBody is the longest question that is read: every field at its cap, escaped.
const maxBody = 64 << 10

// fields are what Flussonic says about a session, by the names of any generation. Those
// that we do not know are ignored: the list grows with Flussonic (spec flussonic §1.2).
type fields map[string]string

// read takes the fields from where this kind of question has them.
func read(r *http.Request) (fields, error) {
	if r.Method == http.MethodPost {
		return fromBody(r.Body)
	}
	return fromQuery(r.URL.RawQuery)
}

// fromQuery reads name=value pairs, strictly: a name that stands twice could be read in two
// ways. The old client put a second question mark before its own fields where the
// configured address had one already, and left a trailing ampersand (spec flussonic §1.2).
func fromQuery(query string) (fields, error) {
	if len(query) > maxBody {
		return nil, caller.Badf("the question is longer than %d bytes", maxBody)
	}
	f := fields{}
	for pair := range strings.SplitSeq(query, "&") {
		for part := range strings.SplitSeq(pair, "?") {
			key, value, _ := strings.Cut(part, "=")
			key, err := url.QueryUnescape(key)
			if err == nil {
				value, err = url.QueryUnescape(value)
			}
			if err != nil {
				return nil, caller.Badf("the question is not correctly percent-encoded")
			}
			if key == "" {
				continue
			}
			if _, twice := f[key]; twice && known(key) {
				return nil, caller.Badf("field %s stands in the question twice", key)
			}
			f[key] = value
		}
	}
	return f, nil
}

// fromBody reads the object that on_publish posts. What is neither text, number nor
// yes-or-no has no meaning for us: samples show `host` as an empty object.
func fromBody(body io.Reader) (fields, error) {
	data, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	switch {
	case err != nil:
		return nil, caller.Badf("the question's body could not be read")
	case len(data) > maxBody:
		return nil, caller.Badf("the question is longer than %d bytes", maxBody)
	case !utf8.Valid(data):
		return nil, caller.Badf("the question is not UTF-8")
	}
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.UseNumber()
	f, err := object(d)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, caller.Badf("something follows the question's JSON object")
	}
	return f, nil
}

// object reads one object by its tokens: json.Unmarshal would take the last of two values.
func object(d *json.Decoder) (fields, error) {
	broken := caller.Badf("the question is not a JSON object")
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, broken
	}
	f := fields{}
	for d.More() {
		t, err := d.Token()
		key, isText := t.(string)
		if err != nil || !isText {
			return nil, broken
		}
		var value any
		if err := d.Decode(&value); err != nil {
			return nil, broken
		}
		if _, twice := f[key]; twice && known(key) {
			return nil, caller.Badf("field %s stands in the question twice", key)
		}
		switch v := value.(type) {
		case string:
			f[key] = v
		case json.Number:
			f[key] = v.String()
		case bool:
			f[key] = strconv.FormatBool(v)
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, broken
	}
	return f, nil
}

// known are the fields that we read.
func known(name string) bool {
	switch name {
	case "name", "token", "ip", "session_id", "request_type", "proto", "type", "qs", "user_agent", "referer", "host",
		"dvr", "media_request":
		return true
	}
	return false
}

// name is a field that is an identity: refused rather than cut.
func (f fields) name(key string, limit int) (string, error) {
	return caller.Strict(key, f[key], limit)
}

// label is a field that is only shown or matched.
func (f fields) label(key string, limit int) string { return access.Clean(f[key], limit) }
