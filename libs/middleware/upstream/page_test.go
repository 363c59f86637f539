package upstream

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestPageBegins(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]bool{
		"": false, "OK": false, "1": false, "{}": false, "<b>ok</b>": false, "<error>0</error>": false, "<?xml version='1.0'?><error>0</error>": false,
		"<!-- page": false, "< html>": false, "<htm": false, "ok <html>": false,
		"<!DOCTYPE html><html>": true, "<!doctype HTML PUBLIC \"-//W3C//DTD XHTML 1.0\">": true, "\r\n\t <HTML lang=de>": true, "\xef\xbb\xbf\n<html>": true,
		"<?xml version=\"1.0\"?>\n<!DOCTYPE html PUBLIC \"x\">": true, "<!-- a --><!-- b -->\n<html>": true, "<script>location='/login'</script>": true,
		"<meta http-equiv=refresh content='0;url=/login'>": true, "<head>": true, "<body>": true, "<title>Sign in</title>": true,
	} {
		if got := pageBegins([]byte(body)); got != want {
			t.Errorf("pageBegins(%q) = %v, want %v", body, got, want)
		}
		read, err := begin(iotest.OneByteReader(strings.NewReader(body)))
		if err != nil || pageBegins(read) != want {
			t.Errorf("%q, byte by byte, is read as %q (%v), want a page: %v", body, read, err, want)
		}
	}
	endless := io.MultiReader(strings.NewReader("OK"), iotest.ErrReader(io.ErrClosedPipe))
	if read, err := begin(iotest.OneByteReader(endless)); err != nil || string(read) != "O" {
		t.Errorf("read %q (%v) of what is no page, want its first byte", read, err)
	}
}

func FuzzPage(f *testing.F) {
	for _, body := range []string{"", "<!--", "<?", "<!DOCTYPE html>", "\xef\xbb\xbf<html>", "<?x?><!-- --><html", strings.Repeat("<!---->", 200)} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		whole, err := begin(strings.NewReader(body))
		if err != nil || len(whole) > pageBytes {
			t.Fatalf("begin: %d bytes, %v", len(whole), err)
		}
		slow, err := begin(iotest.OneByteReader(strings.NewReader(body)))
		if err != nil || pageBegins(slow) != pageBegins(whole) {
			t.Errorf("%q is a page or not by how it arrives: %q, %q", body, slow, whole)
		}
	})
}
