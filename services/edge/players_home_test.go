package edge

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/directive"
)

// byID makes a player whose requests with a token name its device.
func byID(id string) func(*hls) {
	return func(p *hls) { p.node, p.id = "app", id }
}

func lenient(p *hls) { p.lenient = true }

// TestAFamilyZapsAtOnce: two devices of an account with two seats never refuse each other.
func TestAFamilyZapsAtOnce(t *testing.T) {
	t.Parallel()
	for _, mode := range bothModes {
		inRoom(t, 2, 2, mode, func(r *room) {
			tv := r.hls("anna", func(p *hls) { p.trail = 20 * time.Second })
			phone := r.hls("anna", func(p *hls) { p.agent, p.trail = "Phone/2.0", 12*time.Second })
			for range 4 {
				for i := range 12 {
					tv.zap([]string{"a", "b@1", "c"}[i%3])
					phone.zap([]string{"c", "a", "b@1", "d@1"}[i%4])
					r.pass(time.Duration(i%9) * time.Second)
				}
				r.pass(5 * time.Minute)
				r.wantSeats("while both play", "c", "d@1")
			}
			r.wantCourtesy()
		})
	}
}

// TestTwoEqualBoxes behind one address are two seats: at once where their ids or their tokens tell
// them apart, else as soon as both go on.
func TestTwoEqualBoxes(t *testing.T) {
	t.Parallel()
	for name, two := range map[string]func(r *room) (first, second *hls){
		"by their ids": func(r *room) (first, second *hls) { return r.hls("anna", byID("box-1")), r.hls("anna", byID("box-2")) },
		"by their accounts": func(r *room) (first, second *hls) {
			r.limit = 4 // of two accounts together
			return r.hls("anna"), r.hls("berta")
		},
		"by playing both": func(r *room) (first, second *hls) { return r.hls("anna"), r.hls("anna") },
	} {
		for _, mode := range bothModes {
			t.Run(name+"/"+string(mode), func(t *testing.T) {
				t.Parallel()
				inRoom(t, 1, 2, mode, func(r *room) {
					one, two := two(r)
					one.zap("a")
					r.pass(30 * time.Second)
					two.zap("b")
					r.pass(2 * time.Minute)
					r.wantSeats("both play", "a", "b")
					r.pass(time.Hour + time.Minute)
					r.wantSeats("an hour later", "a", "b")
				})
			})
		}
	}
}

// TestTwoEqualBoxesOnOneStream are two seats where their tokens differ.
func TestTwoEqualBoxesOnOneStream(t *testing.T) {
	t.Parallel()
	inRoom(t, 1, 2, access.RefuseNew, func(r *room) {
		one, two := r.astra("anna"), r.astra("anna")
		one.token, two.token = "anna.1", "anna.2"
		one.zap("a")
		two.zap("a")
		r.wantSeats("both play", "a", "a")
	})
}

// TestARestreamerGainsNothing: many streams on one device, or under one id, never hold more than its limit; the others
// are refused, and zapping among them costs seats for an hour.
func TestARestreamerGainsNothing(t *testing.T) {
	t.Parallel()
	for _, mode := range bothModes {
		for where, at := range map[string]string{"one edge": "0", "two edges": "01"} {
			t.Run(string(mode)+"/"+where, func(t *testing.T) {
				t.Parallel()
				inRoom(t, 2, 2, mode, func(r *room) {
					var all []*hls
					for i := range 6 {
						p := r.hls("pirate", byID("the-box"), lenient)
						p.zap(fmt.Sprintf("s%d@%c", i, at[i%len(at)]))
						all = append(all, p)
						r.pass(5 * time.Second)
					}
					r.pass(6 * time.Minute)
					for _, p := range all {
						p.refused = nil
					}
					for range 20 {
						r.pass(2 * time.Minute)
						for _, p := range all {
							p.zap(p.current) // opens it again
						}
					}
					playing := 0
					for _, p := range all {
						if len(p.refused) == 0 {
							playing++
						}
					}
					if playing > 2 {
						t.Errorf("%d streams played for forty minutes without a refusal, the limit is 2", playing)
					}
					r.mu.Lock()
					defer r.mu.Unlock()
					if r.still == 0 {
						t.Error("nobody noticed that it plays many")
					}
				})
			})
		}
	}
}

// TestARestreamerOnFlussonicGainsNothing although it is asked about seldom.
func TestARestreamerOnFlussonicGainsNothing(t *testing.T) {
	t.Parallel()
	for _, mode := range bothModes {
		inRoom(t, 1, 1, mode, func(r *room) {
			p := r.flussonic("pirate")
			p.lenient = true
			p.zap("a", "b")
			r.pass(15 * time.Minute)
			p.refused = nil
			r.pass(30 * time.Minute)
			if len(p.refused) < 8 {
				t.Errorf("%s: two streams with one seat were refused %d times in half an hour: %v", mode, len(p.refused), p.refused)
			}
		})
	}
}

// TestPlaylistsInParallel: Apple's player asks for several playlists and segments at once, also when
// it opens a stream, and all of that is one viewer.
func TestPlaylistsInParallel(t *testing.T) {
	t.Parallel()
	for _, bearer := range []bool{false, true} {
		inRoom(t, 2, 1, access.RefuseNew, func(r *room) {
			p := r.hls("anna", func(p *hls) { p.agent, p.bearer = "AppleCoreMedia/1.0.0.21A329 (iPhone)", bearer })
			for i, stream := range []string{"a", "b@1", "c", "a", "b@1", "a"} {
				p.zap(stream)
				var all sync.WaitGroup
				files := []string{"audio/list.m3u8", "720p/list.m3u8", "subtitles/list.m3u8", "audio/1.aac", "720p/1.ts"}
				ok := make([]bool, len(files))
				for i, file := range files {
					all.Go(func() { ok[i] = p.fetch(stream, file, bearer) })
				}
				all.Wait()
				if slices.Contains(ok, false) {
					t.Errorf("%s: of %v these were answered: %v", stream, files, ok)
				}
				r.pass(time.Duration(1+i) * time.Second)
			}
			r.pass(2 * time.Minute)
			r.wantSeats("after all", "a")
			r.wantCourtesy()
		})
	}
}

// TestPreviewsDoNotDisturb: a mosaic opens other streams for a moment each while the device plays its own.
func TestPreviewsDoNotDisturb(t *testing.T) {
	t.Parallel()
	for _, mode := range bothModes {
		inRoom(t, 2, 1, mode, func(r *room) {
			p := r.hls("anna")
			p.zap("a")
			r.pass(time.Minute)
			for _, preview := range []string{"b", "c@1", "d", "e@1"} {
				p.fetch(preview, "index.m3u8", true)
				p.fetch(preview, "720p/1.ts", false)
				r.pass(time.Second)
			}
			r.pass(5 * time.Minute)
			r.wantSeats("after the mosaic", "a")
			r.wantCourtesy()
		})
	}
}

// TestAPlayerMovesToAnotherNetwork: the same device under another address goes on with its session.
func TestAPlayerMovesToAnotherNetwork(t *testing.T) {
	t.Parallel()
	for _, mode := range bothModes {
		inRoom(t, 1, 1, mode, func(r *room) {
			p := r.hls("anna", byID("phone-1"))
			p.zap("a")
			for i := range 5 {
				r.pass(30 * time.Second)
				p.ip = fmt.Sprintf("198.51.100.%d", i+1)
				p.zap("a") // its connection broke: it opens the playlist again
			}
			r.pass(2 * time.Minute)
			r.wantSeats("after moving", "a")
			r.wantCourtesy()
		})
	}
}

// TestABoxConnectsAgain: Astra gives it another number, and it is the same viewer where it names itself.
func TestABoxConnectsAgain(t *testing.T) {
	t.Parallel()
	for _, mode := range bothModes {
		inRoom(t, 1, 1, mode, func(r *room) {
			p := r.astra("anna")
			p.device = "MAC-1"
			for i := range 5 {
				p.ip = fmt.Sprintf("198.51.100.%d", i+1)
				p.zap("a")
				r.pass(10 * time.Second)
			}
			r.wantSeats("after five connections", "a")
		})
	}
}

// TestAPlayerMovesIntoABannedNetwork: what holds where the device is now ends its session.
func TestAPlayerMovesIntoABannedNetwork(t *testing.T) {
	t.Parallel()
	inRoom(t, 1, 1, access.EvictOldest, func(r *room) {
		p := r.hls("anna", byID("phone-1"), lenient)
		p.zap("a")
		r.edges[0].hear(directed(directive.Ban, directive.Deny, func(d *directive.Directive) { d.Network = netip.MustParsePrefix("198.51.100.0/24") }))
		r.pass(10 * time.Second)
		p.ip = "198.51.100.9"
		if p.fetch("a", "index.m3u8", true) || p.fetch("a", "720p/1.ts", false) {
			t.Error("let in from a banned network, want a refusal")
		}
	})
}
