package smarty

import (
	"bytes"
	"errors"
	"testing"

	"usher.internal/libs/middleware"
)

// FuzzVerdict holds for whatever stands at Smarty's address: a page and what is broken are never
// a yes, and the words of a no are ours.
func FuzzVerdict(f *testing.F) {
	for _, s := range []string{
		"", "OK", `{"error": 0}`, `{"error":"3"}`, `{"error":0,"error":1}`, `{"error":{}}`, `[{"error":0}]`, `{"error"`, "\ufeff{\"error\":1}",
		"<response><error>0</error><error>2</error></response>", "<error/>", "<a><error>0", "<!DOCTYPE html><html>", "<?xml version='1.0'?><HTML>",
		"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><r><error>&e;</error></r>",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		text, err := verdict(body)
		if err != nil && (text != "" || !errors.Is(err, middleware.ErrUnavailable)) {
			t.Errorf("verdict(%q) = %q, %v", body, text, err)
		}
		trimmed := bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\ufeff")))
		if len(trimmed) == 0 || err != nil || text != "" {
			return
		}
		if bytes.ContainsRune([]byte("{[<"), rune(trimmed[0])) && !bytes.Contains(trimmed, []byte("0")) {
			t.Errorf("verdict(%q) is a yes without a 0", body)
		}
		if bytes.HasPrefix(bytes.ToLower(trimmed), []byte("<html")) && !bytes.Contains(trimmed, []byte("error")) {
			t.Errorf("verdict(%q) takes a page for an answer", body)
		}
	})
}
