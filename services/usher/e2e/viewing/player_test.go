package viewing_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// player plays HLS from a server as players do: the master playlist with the token, then one
// rendition and its segments by the addresses in the playlists, which carry none.
type player struct {
	c      *cluster
	agent  string
	header http.Header // sent with each request, may be nil
	master string

	next []string // addresses to fetch, in turns
	at   int
}

func (c *cluster) player(agent, server, stream, token string) *player {
	return &player{c: c, agent: agent, master: server + "/hls/" + stream + "/index.m3u8" + query(token)}
}

// fetch gets one file.
func (p *player) fetch(address string) (status int, body string) {
	p.c.t.Helper()
	r := get(address)
	for name, values := range p.header {
		r.Header[name] = values
	}
	r.Header.Set("User-Agent", p.agent)
	res, err := p.c.client.Do(r)
	if err != nil {
		p.c.t.Errorf("%s: %v", p.agent, err)
		return 0, ""
	}
	defer func() { _ = res.Body.Close() }() // it was read
	text, err := io.ReadAll(res.Body)
	if err != nil {
		p.c.t.Errorf("%s: %v", p.agent, err)
	}
	return res.StatusCode, string(text)
}

// open fetches the playlists and the first segment. It stops at what is refused, and returns the
// last status.
func (p *player) open(rendition int) int {
	p.c.t.Helper()
	status, text := p.fetch(p.master)
	if status != http.StatusOK {
		return status
	}
	list := p.entries(p.master, text)[rendition]
	status, text = p.fetch(list)
	if status != http.StatusOK {
		return status
	}
	p.next = append([]string{list}, p.entries(list, text)...)
	return p.play()
}

// play fetches the next file: segments and, in between, the playlist again.
func (p *player) play() int {
	p.c.t.Helper()
	p.at++
	status, text := p.fetch(p.next[p.at%len(p.next)])
	if status == http.StatusOK && text == "" {
		p.c.t.Errorf("%s: got no file", p.agent)
	}
	return status
}

// entries are a playlist's addresses.
func (p *player) entries(address, playlist string) []string {
	base, err := url.Parse(address)
	must(p.c.t, err)
	var all []string
	for line := range strings.Lines(playlist) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			ref, err := url.Parse(line)
			must(p.c.t, err)
			all = append(all, base.ResolveReference(ref).String())
		}
	}
	return all
}

// watch plays on until stop is called, which returns when the last request was begun. Whatever
// is not 200 fails the test.
func (p *player) watch(every time.Duration) (stop func() time.Time) {
	quit, done := make(chan struct{}), make(chan time.Time)
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			last := time.Now()
			if status := p.play(); status != http.StatusOK {
				p.c.t.Errorf("%s: answered %d while playing, want 200", p.agent, status)
			}
			select {
			case <-tick.C:
			case <-quit:
				done <- last
				return
			}
		}
	}()
	return sync.OnceValue(func() time.Time {
		close(quit)
		return <-done
	})
}
