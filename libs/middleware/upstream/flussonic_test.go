package upstream

import (
	"encoding/json"
	"net/url"
	"testing"
	"unicode/utf8"

	"usher.internal/libs/access"
)

// FuzzFlussonicFields holds for any viewer: whatever reads the question, as a query or
// as JSON, finds each of our fields once and with our value.
func FuzzFlussonicFields(f *testing.F) {
	f.Add("token=T&name=x", "T", "bbc", "VLC", "https://a.b/", "tv.example.com", "/bbc/index.m3u8", "hls")
	f.Add(`"},{"name":"x`, "a&name=x", `b"`, "\x00", "\xff", "#?&;=", "/timeshift_abs-5.ts", "\u2028")
	f.Fuzz(func(t *testing.T, query, token, stream, agent, referer, host, path, proto string) {
		req := &access.Request{
			Query: query, Token: token, Stream: stream, UserAgent: agent, Referer: referer, Host: host, Path: path, Protocol: proto,
		}
		fields := FlussonicFields(req)
		values, err := url.ParseQuery(Query(fields))
		if err != nil || len(values) != len(fields) || !Clean(Query(fields)) && len(Query(fields)) <= access.MaxQuery {
			t.Fatalf("Query = %q, %v", Query(fields), err)
		}
		var object map[string]any
		if err := json.Unmarshal([]byte(JSON(fields)), &object); err != nil || len(object) != len(fields) {
			t.Fatalf("JSON = %s, %v", JSON(fields), err)
		}
		for _, f := range fields {
			if got := values[f.Name]; len(got) != 1 || got[0] != text(f.Value) {
				t.Errorf("%s = %q, want %q", f.Name, got, text(f.Value))
			}
			if v, ok := f.Value.(string); ok && utf8.ValidString(v) && object[f.Name] != v {
				t.Errorf("JSON's %s = %q, want %q", f.Name, object[f.Name], v)
			}
		}
	})
}
