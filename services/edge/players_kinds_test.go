package edge

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// box is a set-top box on Astra, which asks once when a channel opens.
type box struct {
	r               *room
	user, ip, agent string
	// token of all channels, "" for one each.
	token   string
	device  string
	number  int
	refused int
}

func (r *room) astra(user string) *box {
	return &box{r: r, user: user, ip: "203.0.113.7", agent: "MAG254"}
}

// zap opens a channel and says whether it plays.
func (p *box) zap(stream string) bool {
	p.r.t.Helper()
	p.r.numbers++
	p.number = p.r.numbers
	token := p.token
	if token == "" {
		token = p.user + "." + stream
	}
	q := astraRequest("token=" + token + "&mac=" + p.device)
	q.Header.Set("X-Session-ID", strconv.Itoa(p.number))
	q.Header.Set("X-Channel-ID", stream)
	q.Header.Set("X-Real-IP", p.ip)
	q.Header.Set("X-Real-UA", p.agent)
	res := p.r.edge(stream).ask(q)
	if res.StatusCode != http.StatusOK {
		p.refused++
		p.r.t.Errorf("refused: %s: %s", stream, res.Header.Get("X-Usher-Reason"))
	}
	return res.StatusCode == http.StatusOK
}

// flussonicPlayer is an HLS player of a Flussonic that makes one session of stream, address and token:
// who comes back within a minute goes on with his old one.
type flussonicPlayer struct {
	r        *room
	user, ip string
	sessions map[string]*flussonicOne
	current  []string
	refused  []string
	lenient  bool
}

type flussonicOne struct {
	id           string
	played, asks time.Time
}

func (r *room) flussonic(user string) *flussonicPlayer {
	p := &flussonicPlayer{r: r, user: user, ip: "203.0.113.7", sessions: map[string]*flussonicOne{}}
	r.playing = append(r.playing, p)
	return p
}

// zap plays another stream instead.
func (p *flussonicPlayer) zap(streams ...string) {
	p.current = streams
	p.tick()
}

// tick is a second of playing and of Flussonic's own clock.
func (p *flussonicPlayer) tick() {
	now := time.Now()
	for _, stream := range p.current {
		s := p.sessions[stream]
		if s == nil {
			p.r.numbers++
			s = &flussonicOne{id: fmt.Sprintf("6217fd62-16da-4206-9da9-%012d", p.r.numbers)}
			p.sessions[stream] = s
			s.played = now
			if !p.ask(stream, s, "new_session") {
				continue
			}
		}
		s.played = now
	}
	for stream, s := range p.sessions {
		switch {
		case now.Sub(s.played) > time.Minute:
			delete(p.sessions, stream)
		case !now.Before(s.asks):
			p.ask(stream, s, "update_session")
		}
	}
}

// ask is Flussonic's question. Who is refused loses his session.
func (p *flussonicPlayer) ask(stream string, s *flussonicOne, kind string) bool {
	p.r.t.Helper()
	change := url.Values{"name": {stream}, "ip": {p.ip}, "token": {p.user + "." + stream}, "session_id": {s.id}, "request_type": {kind}}
	res := p.r.edge(stream).ask(flussonicSession(change.Encode()))
	if res.StatusCode == http.StatusOK {
		again, err := strconv.Atoi(first(res, "X-AuthDuration"))
		if err != nil {
			p.r.t.Errorf("X-AuthDuration: %v", err)
		}
		s.asks = time.Now().Add(time.Duration(again) * time.Second)
		return true
	}
	delete(p.sessions, stream)
	what := time.Now().Format(time.TimeOnly) + " " + stream + " " + kind + " " + res.Header.Get("X-Usher-Reason")
	p.refused = append(p.refused, what)
	if !p.lenient {
		p.r.t.Errorf("refused: %s", what)
	}
	return false
}
