package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	nethttp "net/http"
	"strings"
)

// pageBytes is how much of a body is looked at to tell a web page.
const pageBytes = 1 << 10

// yesHeaders are those by which a backend says something of a viewer; somebody else's
// portal has none of them.
var yesHeaders = [...]string{"X-UserId", "X-Session-Name", "X-Max-Sessions", "X-AuthDuration", "X-Unique"}

// isPage says whether a 200 is a web page that somebody else put in the backend's place: a hotel's, a
// provider's, a proxy's that wants a sign-in. Backends answer text/html too, since PHP does
// unless told otherwise; but not with a page. Where the operator says what a yes looks
// like, that counts alone.
func (c *Client) isPage(ctx context.Context, resp *nethttp.Response) (bool, error) {
	if c.opts.ExpectHeader != "" || c.opts.ExpectBody != "" {
		return false, nil
	}
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != "text/html" && kind != "application/xhtml+xml" {
		return false, nil
	}
	for _, name := range yesHeaders {
		if len(resp.Header.Values(name)) > 0 {
			return false, nil
		}
	}
	body, err := begin(resp.Body)
	if err != nil {
		return false, fault(ctx, err)
	}
	// Whoever reads on finds it from its beginning.
	resp.Body = readCloser{io.MultiReader(bytes.NewReader(body), resp.Body), resp.Body}
	return pageBegins(body), nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

// begin reads as much as tells whether it is a page, which is little where it is none.
func begin(r io.Reader) ([]byte, error) {
	buf := make([]byte, 0, pageBytes)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return nil, err
		case len(buf) == cap(buf), tells(buf):
			return buf, nil
		}
	}
}

// tells says whether what comes after this cannot make a page of it, or make it none.
func tells(body []byte) bool {
	text := trimmed(body)
	if len(text) == 0 || strings.HasPrefix(mark, string(text)) {
		return false // a mark that has come in part
	}
	return text[0] != '<' || pageBegins(body)
}

// beginnings are how pages begin, after spaces, declarations and comments.
var beginnings = [...]string{"<!doctype html", "<html", "<head", "<body", "<title", "<meta", "<script"}

func pageBegins(body []byte) bool {
	text := bytes.ToLower(trimmed(body))
	for {
		end, skipped := "", false
		switch {
		case bytes.HasPrefix(text, []byte("<?")):
			end, skipped = "?>", true
		case bytes.HasPrefix(text, []byte("<!--")):
			end, skipped = "-->", true
		}
		if !skipped {
			break
		}
		_, rest, ok := bytes.Cut(text, []byte(end))
		if !ok {
			return false
		}
		text = bytes.TrimLeft(rest, spaces)
	}
	for _, b := range beginnings {
		if bytes.HasPrefix(text, []byte(b)) {
			return true
		}
	}
	return false
}

// mark is the byte order mark of UTF-8.
const mark, spaces = "\xef\xbb\xbf", " \t\r\n\f\v"

func trimmed(body []byte) []byte {
	return bytes.TrimLeft(bytes.TrimPrefix(bytes.TrimLeft(body, spaces), []byte(mark)), spaces)
}
