package policyimport

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// astraFile is what matters here of Astra's configuration. Astra's documentation names the
// fields of users and streams; those of settings it does not, so that they are searched.
type astraFile struct {
	Users    []astraUser
	Settings map[string]any
	Streams  []map[string]any
}

type astraUser struct {
	Login  string
	Fields map[string]any
}

// parseAstra reads a whole file.
func parseAstra(data []byte) (*astraFile, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	switch {
	case len(data) > maxFile:
		return nil, badf(1, "the file has more than %d bytes", maxFile)
	case !utf8.Valid(data):
		return nil, badf(1, "the file is not UTF-8")
	}
	var top map[string]any
	if err := json.Unmarshal(data, &top); err != nil {
		return nil, badJSON(data, err)
	}
	f := &astraFile{Settings: object(top["settings"]), Users: usersOf(top["users"])}
	for _, key := range []string{"make_stream", "streams"} {
		list, _ := top[key].([]any) // of another form there are none
		for _, s := range list {
			if o := object(s); o != nil {
				f.Streams = append(f.Streams, o)
			}
		}
	}
	if top["users"] == nil && top["settings"] == nil && top["make_stream"] == nil {
		return nil, badf(1, "this is no configuration of Astra: there are neither users nor settings nor make_stream")
	}
	return f, nil
}

// badJSON says where, without what stands there.
func badJSON(data []byte, err error) error {
	line := func(offset int64) int {
		return 1 + bytes.Count(data[:min(max(offset, 0), int64(len(data)))], []byte("\n"))
	}
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return badf(line(syntax.Offset), "the file is not JSON")
	case errors.As(err, &kind):
		return badf(line(kind.Offset), "want an object with users, settings and make_stream")
	}
	return badf(1, "the file is not JSON")
}

// usersOf reads users by login, or a list of them.
func usersOf(v any) []astraUser {
	var users []astraUser
	switch all := v.(type) {
	case map[string]any:
		for _, login := range slices.Sorted(maps.Keys(all)) {
			if fields := object(all[login]); fields != nil {
				users = append(users, astraUser{login, fields})
			}
		}
	case []any:
		for _, one := range all {
			fields := object(one)
			login := text(fields["id"])
			if login == "" {
				login = text(fields["login"])
			}
			if fields != nil {
				users = append(users, astraUser{login, fields})
			}
		}
	}
	return users
}

func object(v any) map[string]any {
	o, _ := v.(map[string]any) // nil is an empty one
	return o
}

func text(v any) string {
	switch t := v.(type) {
	case string:
		return strings.TrimSpace(t)
	case float64:
		return strconv.FormatFloat(t, 'f', -1, 64)
	}
	return ""
}

// number reads a whole number, also from text; 0 for none.
func number(v any) int64 {
	n, err := strconv.ParseInt(text(v), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// yes reads a switch that is on unless it is there and off.
func yes(v any) bool {
	switch t := v.(type) {
	case bool:
		return t
	case nil:
		return true
	}
	s := text(v)
	return s != "0" && s != "false" && s != ""
}

// words reads a list, a text with commas, or an object whose keys are meant.
func words(v any) []string {
	var list []string
	switch t := v.(type) {
	case []any:
		for _, one := range t {
			if o := object(one); o != nil {
				one = o["name"]
			}
			list = append(list, text(one))
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(t)) {
			if yes(t[key]) {
				list = append(list, key)
			}
		}
	default:
		list = strings.FieldsFunc(text(v), func(c rune) bool { return c == ',' || c == ';' || c == '\n' })
	}
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return slices.DeleteFunc(list, func(s string) bool { return s == "" })
}

// until is the end of a user's time, "" for never. Some write milliseconds.
func until(v any) string {
	n := number(v)
	if n > 1e11 {
		n /= 1000
	}
	if n <= 0 || n > 253402300799 {
		return ""
	}
	return time.Unix(n, 0).UTC().Format(time.RFC3339)
}
