package subscriber

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

func pack(t testing.TB, streams ...string) Packages {
	t.Helper()
	p, err := NewPackage("basic", streams)
	if err != nil {
		t.Fatal(err)
	}
	return Packages{"basic": p}
}

func TestWritePlaylist(t *testing.T) {
	t.Parallel()
	a := &Account{User: "anna/1", Packages: []string{"basic", "gone"}}
	names := &Playlist{URL: "https://tv.example.com/{stream}/index.m3u8?token={token}"}
	got, err := names.Write(a, pack(t, "sport/1", "news", "a b&c", "kids/*"), "t+k:n/1")
	want := "#EXTM3U\n#EXTINF:-1,a b&c\nhttps://tv.example.com/a%20b%26c/index.m3u8?token=t%2Bk%3An%2F1\n" +
		"#EXTINF:-1,news\nhttps://tv.example.com/news/index.m3u8?token=t%2Bk%3An%2F1\n" +
		"#EXTINF:-1,sport/1\nhttps://tv.example.com/sport/1/index.m3u8?token=t%2Bk%3An%2F1\n"
	if err != nil || string(got) != want {
		t.Errorf("Write = %v\n%s\nwant\n%s", err, got, want)
	}
	listed := &Playlist{URL: "http://h/{token}/{user}/{stream}", Channels: []Channel{
		{Stream: "kids/1", Name: `The "Kids", HD`, Group: `"K"`, Logo: "http://h/k.png", Guide: "kids.tv"}, {Stream: "films"}, {Stream: "news"},
	}}
	got, err = listed.Write(a, pack(t, "news", "kids/*"), "tok")
	want = "#EXTM3U\n#EXTINF:-1 tvg-id=\"kids.tv\" tvg-logo=\"http://h/k.png\" group-title=\"'K'\",The \"Kids\", HD\nhttp://h/tok/anna%2F1/kids/1\n" +
		"#EXTINF:-1,news\nhttp://h/tok/anna%2F1/news\n"
	if err != nil || string(got) != want {
		t.Errorf("Write = %v\n%s\nwant\n%s", err, got, want)
	}
	if got, err := listed.Write(a, nil, "tok"); err != nil || strings.Count(string(got), "#EXTINF") != 3 {
		t.Errorf("without packages: %s, %v", got, err)
	}
	for what, ps := range map[string]Packages{"no exact names": pack(t, "kids/*"), "no packages": {}} {
		if _, err := names.Write(a, ps, "tok"); !errors.Is(err, ErrPlaylist) {
			t.Errorf("%s: %v, want ErrPlaylist", what, err)
		}
	}
	var many []string
	for i := range 20_000 {
		many = append(many, fmt.Sprint("stream", i))
	}
	if _, err := names.Write(a, pack(t, many...), "tok"); !errors.Is(err, ErrPlaylist) {
		t.Errorf("20,000 streams: %v, want ErrPlaylist", err)
	}
	if f := FileName(a); f != "anna_1" {
		t.Errorf("FileName = %q", f)
	}
}

func TestPlaylistOptions(t *testing.T) {
	t.Parallel()
	for text, good := range map[string]bool{
		"https://h/{stream}?token={token}": true, "http://h:80/{token}/{stream}": true, "https://h/x": false, "{stream}": false,
		"ftp://h/{stream}": false, "https://h/{stream}?x={pw}": false, "https://h/{stream": false, "https://h/{stream} x": false, "": false,
	} {
		if err := (&Playlist{URL: text}).Validate(); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
	bad := &Playlist{URL: "https://h/{stream}", Channels: []Channel{{Stream: "x/*"}, {Stream: "x", Name: "a\nb"}}}
	if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), "channels[0]") || !strings.Contains(err.Error(), "channels[1]") {
		t.Errorf("bad channels: %v", err)
	}
}

func FuzzPlaylist(f *testing.F) {
	f.Add("news", "token", "anna")
	f.Add("a/b c", "x\ny", "../..")
	f.Fuzz(func(t *testing.T, stream, token, user string) {
		if !Exact(stream) {
			return
		}
		p := &Playlist{URL: "https://tv.example.com/{stream}/index.m3u8?token={token}&u={user}", Channels: []Channel{{Stream: stream}}}
		got, err := p.Write(&Account{User: user}, nil, token)
		if err != nil {
			return
		}
		lines := strings.Split(string(got), "\n")
		if len(lines) != 4 {
			t.Fatalf("%d lines: %q", len(lines), got)
		}
		u, err := url.Parse(lines[2])
		if err != nil || u.Host != "tv.example.com" || u.Query().Get("token") != token || u.Query().Get("u") != user {
			t.Fatalf("address %q of %q, %q, %q: %v", lines[2], stream, token, user, err)
		}
	})
}
