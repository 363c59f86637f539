package smarty

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"usher.internal/libs/middleware"
)

// meanings are Smarty's words for its errors.
var meanings = map[string]string{
	"1": "the token has expired",
	"2": "the token is for other content",
	"3": "the token is for another address",
}

// verdict reads `error` of a body in JSON or XML: the words of a no, "" where it is 0
// or the body is empty or plain text, which leaves it to the status. A page is never an
// answer of this API; what begins as JSON or XML and breaks off cannot be told.
func verdict(body []byte) (string, error) {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\ufeff")))
	var (
		codes []string
		err   error
	)
	switch {
	case len(body) == 0:
		return "", nil
	case body[0] == '{' || body[0] == '[':
		codes, err = fromJSON(body)
	case body[0] == '<':
		codes, err = fromXML(body)
	default:
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%w: its answer is broken", middleware.ErrUnavailable)
	}
	if len(codes) == 0 {
		return "the backend's answer holds no error code: it is not Smarty's", nil
	}
	for _, code := range codes {
		if code == "0" {
			continue
		}
		if text, ok := meanings[code]; ok {
			return text, nil
		}
		return "the backend's answer holds another error than 0", nil
	}
	return "", nil
}

func fromJSON(body []byte) ([]string, error) {
	if !json.Valid(body) {
		return nil, errors.New("not JSON")
	}
	var answer struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Error == nil {
		return nil, nil // JSON of something else
	}
	return []string{strings.Trim(string(answer.Error), `"`)}, nil
}

// fromXML finds <error> as the root or below it, wherever a serializer puts it.
func fromXML(body []byte) ([]string, error) {
	d := xml.NewDecoder(bytes.NewReader(body))
	// The text is ASCII where it matters, whatever encoding the declaration names.
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	var codes []string
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return codes, nil
		}
		if page(token) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		start, ok := token.(xml.StartElement)
		if !ok || start.Name.Local != "error" {
			continue
		}
		var code string
		if err := d.DecodeElement(&code, &start); err != nil {
			return nil, err
		}
		codes = append(codes, strings.TrimSpace(code))
	}
}

// page says whether this begins a page for people, which need not be sound XML.
func page(token xml.Token) bool {
	switch t := token.(type) {
	case xml.Directive:
		return strings.HasPrefix(strings.ToLower(string(t)), "doctype html")
	case xml.StartElement:
		return strings.EqualFold(t.Name.Local, "html")
	}
	return false
}
