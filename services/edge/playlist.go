package edge

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/internal/caller"
)

const (
	// playlistKind is what stands in the path in place of a caller's kind.
	playlistKind = "playlist"
	// playlistBudget is how long a player waits for its playlist.
	playlistBudget = 5 * time.Second
	// playlistsAtOnce bounds what is under way; the rest is asked to come again.
	playlistsAtOnce = 32
	// Playlists and refusals that one address gets in a minute. Whoever tries tokens is slowed
	// down to a few, while a household behind one address is not.
	playlistsPerMinute, refusalsPerMinute = 60, 10
	// maxPaced bounds the addresses that are told apart in a minute; more share one.
	maxPaced = 65536
)

// Lists asks the workers of a region for a subscriber's playlist.
type Lists interface {
	AskPlaylist(ctx context.Context, region, edge string, req *usherv1.PlaylistRequest) (*usherv1.PlaylistReply, error)
}

// playlists hands out own subscribers' playlists.
type playlists struct {
	lists Lists // nil: nobody can be asked
	turns chan struct{}
	pace  pace
}

func newPlaylists(l Lists) *playlists {
	return &playlists{lists: l, turns: make(chan struct{}, playlistsAtOnce), pace: pace{seen: map[netip.Addr]*paced{}}}
}

// servePlaylist answers /v1/playlist/<check>/<token>. What it answers is for whoever asks alone,
// and is kept nowhere.
func (s *Service) servePlaylist(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "private, no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	check, token, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/"+playlistKind+"/"), "/")
	q := &question{asked: time.Now(), method: r.Method}
	q.Region, q.Edge, q.Caller = s.cfg.Region, s.cfg.Name, playlistKind
	q.deadline = q.asked.Add(playlistBudget - answerTime)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		s.plain(w, http.StatusMethodNotAllowed, "a playlist is fetched with GET")
		return
	}
	if q.view = s.waitView(q.deadline); q.view == nil {
		s.plain(w, http.StatusServiceUnavailable, "the edge has not received the policy yet: try again")
		return
	}
	trust, public := q.view.playlists[check]
	if !public || token == "" {
		s.plain(w, http.StatusNotFound, "there is no such playlist")
		return
	}
	from, err := (&caller.Node{IPTrust: trust}).ClientIP(r.Header, peerOf(r.RemoteAddr), "X-Forwarded-For")
	if err != nil {
		s.plain(w, http.StatusBadRequest, "the address in X-Forwarded-For cannot be read")
		return
	}
	q.IP = from
	if _, err := caller.Strict("the token", token, access.MaxToken); err != nil {
		s.plain(w, http.StatusBadRequest, "the token cannot be read")
		return
	}
	s.fetch(w, r, q, &usherv1.PlaylistRequest{Check: check, Token: token, Ip: from.String()})
}

// fetch asks a worker, if this address has not asked too often.
func (s *Service) fetch(w http.ResponseWriter, r *http.Request, q *question, req *usherv1.PlaylistRequest) {
	p, now := s.playlists, s.now()
	if !p.pace.take(prefixOf(q.IP), now) {
		w.Header().Set("Retry-After", "60")
		s.plain(w, http.StatusTooManyRequests, "too many playlists were asked for from this address: wait a minute")
		return
	}
	select {
	case p.turns <- struct{}{}:
		defer func() { <-p.turns }()
	default:
		w.Header().Set("Retry-After", "1")
		s.plain(w, http.StatusServiceUnavailable, "too many playlists are being fetched: try again")
		return
	}
	ctx, cancel := context.WithDeadline(r.Context(), q.deadline)
	defer cancel()
	var reply *usherv1.PlaylistReply
	order := s.regions.order(s.now(), true)
	for i := range 2 * len(order) { // the first worker may be full, or not be there any more
		reply = s.askPlaylist(ctx, order[i%len(order)], req, 2*len(order)-i)
		if reply.GetStatus() == usherv1.AuthReply_STATUS_DECIDED || ctx.Err() != nil {
			break
		}
	}
	switch reason := access.Reason(reply.GetReason()); {
	case reply.GetStatus() != usherv1.AuthReply_STATUS_DECIDED:
		w.Header().Set("Retry-After", "5")
		s.plain(w, http.StatusServiceUnavailable, "the playlist cannot be written now: try again")
	case reason == access.NoRule:
		s.plain(w, http.StatusNotFound, "there is no such playlist")
	case reason != "":
		p.pace.refused(prefixOf(q.IP), now)
		d := s.refuse(r.Context(), q, q.IP, reason, access.Step{Name: "playlist " + req.GetCheck(), Result: "deny", Text: reply.GetText()})
		caller.Common(w.Header(), &d)
		w.Header().Set("Cache-Control", "private, no-store")
		s.plain(w, http.StatusForbidden, "no playlist: "+reason.Text())
	default:
		s.send(w, r, reply)
	}
}

// askPlaylist asks one region within its part of the time, nil for no answer.
func (s *Service) askPlaylist(ctx context.Context, r *region, req *usherv1.PlaylistRequest, tocome int) *usherv1.PlaylistReply {
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(tocome))
	defer cancel()
	reply, err := s.playlists.lists.AskPlaylist(ctx, r.name, s.cfg.Name, req)
	if err != nil {
		return nil
	}
	return reply
}

func (s *Service) send(w http.ResponseWriter, r *http.Request, reply *usherv1.PlaylistReply) {
	s.metrics.playlists.WithLabelValues("200").Inc()
	h := w.Header()
	h.Set("Content-Type", "application/x-mpegurl")
	h.Set("Content-Disposition", `attachment; filename="`+reply.GetName()+`.m3u"`)
	h.Set("Content-Length", strconv.Itoa(len(reply.GetBody())))
	if r.Method == http.MethodGet {
		_, _ = w.Write(reply.GetBody()) // whoever hangs up does not want it
	}
}

// plain answers in words.
func (s *Service) plain(w http.ResponseWriter, status int, text string) {
	s.metrics.playlists.WithLabelValues(strconv.Itoa(status)).Inc()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n")) // whoever hangs up does not read it
}

// compilePlaylists reads the checks that have public playlists.
func compilePlaylists(p *usherv1.Projection) (map[string][]netip.Prefix, error) {
	all := make(map[string][]netip.Prefix, len(p.GetPlaylists()))
	for _, v := range p.GetPlaylists() {
		trust := make([]netip.Prefix, 0, len(v.GetTrust()))
		for _, text := range v.GetTrust() {
			prefix, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, fmt.Errorf("playlists of %s: trust: %w", v.GetCheck(), err)
			}
			trust = append(trust, prefix)
		}
		all[v.GetCheck()] = trust
	}
	return all, nil
}

// pace counts what each address asked for in a minute.
type pace struct {
	mu    sync.Mutex // guards all below
	since instant
	seen  map[netip.Addr]*paced
}

type paced struct{ asked, refused int }

// take says whether the address may ask now, and counts it.
func (p *pace) take(who netip.Addr, now instant) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.find(who, now)
	if a.asked >= playlistsPerMinute || a.refused >= refusalsPerMinute {
		return false
	}
	a.asked++
	return true
}

// refused counts a refusal.
func (p *pace) refused(who netip.Addr, now instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.find(who, now).refused++
}

func (p *pace) find(who netip.Addr, now instant) *paced {
	if now.since(p.since) >= time.Minute {
		clear(p.seen)
		p.since = now
	}
	if _, known := p.seen[who]; !known && len(p.seen) >= maxPaced {
		who = netip.Addr{}
	}
	a := p.seen[who]
	if a == nil {
		a = new(paced)
		p.seen[who] = a
	}
	return a
}
