package access_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"

	"usher.internal/libs/access"
)

func TestAddressesThatCannotBe(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"", "tv.example.com", "/no", "ftp://a/", "https://", "https:///x", "https://{stream}/", "https://{stream}.example.com/", "https://tv.example.com{stream}",
		"https://tv@{stream}/", "https://user@tv.example.com/", `https://tv.example.com\@x/`, "https://a/{strea}", "https://a/{stream", "https://a/}", "https://a/ b", "https://a/\r\nX: y",
		"https://a/é", "https://a/{Stream}", "javascript:alert(1)", "https://a/" + strings.Repeat("x", access.MaxPath),
	} {
		if err := access.CheckAddress(bad); err == nil {
			t.Errorf("CheckAddress(%q) = nil", bad)
		}
	}
	for _, good := range []string{"https://a", "http://a:8080/x?y={stream}&z={reason}#{decision}", "https://a?s={stream}", "https://[2001:db8::1]/{stream}/"} {
		if err := access.CheckAddress(good); err != nil {
			t.Errorf("CheckAddress(%q) = %v", good, err)
		}
	}
}

func TestAddressIsFilledIn(t *testing.T) {
	t.Parallel()
	id := uuid.MustParse("0190163d-8694-739b-aea5-966c26f8ad91")
	got := access.Address("https://a/{reason}?s={stream}&d={decision}&again={stream}", "спорт/a b&c={stream}", access.Limit, id)
	want := "https://a/limit?s=%D1%81%D0%BF%D0%BE%D1%80%D1%82%2Fa%20b%26c%3D%7Bstream%7D&d=" + id.String() + "&again=%D1%81%D0%BF%D0%BE%D1%80%D1%82%2Fa%20b%26c%3D%7Bstream%7D"
	if got != want {
		t.Errorf("Address = %s, want %s", got, want)
	}
}

func FuzzAddress(f *testing.F) {
	for _, s := range []string{"news", "//evil.example", "@evil.example", "\\evil", "..", "a\r\nLocation: x", "%2e%2e"} {
		f.Add("https://tv.example.com/no/{stream}?r={reason}", s)
	}
	f.Fuzz(func(t *testing.T, template, stream string) {
		if access.CheckAddress(template) != nil {
			return
		}
		before, err := url.Parse(strings.NewReplacer("{stream}", "", "{reason}", "", "{decision}", "").Replace(template))
		if err != nil {
			return
		}
		after, err := url.Parse(access.Address(template, stream, access.Limit, uuid.Nil))
		if err != nil || after.Host != before.Host || after.Scheme != before.Scheme {
			t.Errorf("%q with %q leads to %v (%v), want to stay at %s", template, stream, after, err, before.Host)
		}
	})
}
