package edge

import (
	"fmt"
	"testing"
	"time"

	"usher.internal/libs/access"
)

var bothModes = []access.Mode{access.EvictOldest, access.RefuseNew}

// fleets are ways in which the streams of one zapping are spread over edges.
var fleets = map[string][]string{
	"one edge":                  {"a", "b", "c"},
	"every stream on its own":   {"a@0", "b@1", "c@2"},
	"the middle one elsewhere":  {"a@0", "b@1", "c@0"},
	"the first one elsewhere":   {"a@1", "b@0", "c@0"},
	"the last before elsewhere": {"a@0", "b@0", "c@1"},
}

// TestZappingThroughAndBack: A → B → C → A within a minute is never refused, also with one seat, and never
// taken for two viewers.
func TestZappingThroughAndBack(t *testing.T) {
	t.Parallel()
	for name, streams := range fleets {
		for _, mode := range bothModes {
			for _, trail := range []time.Duration{0, 6 * time.Second, 20 * time.Second} {
				for _, pace := range []time.Duration{1 * time.Second, 5 * time.Second, 11 * time.Second, 14 * time.Second, 19 * time.Second} {
					t.Run(fmt.Sprintf("%s/%s/trailing %s/every %s", name, mode, trail, pace), func(t *testing.T) {
						t.Parallel()
						inRoom(t, 3, 1, mode, func(r *room) {
							p := r.hls("anna", func(p *hls) { p.trail = trail })
							for _, s := range append(streams, streams[0]) {
								p.zap(s)
								r.pass(pace)
							}
							r.pass(3 * time.Minute)
							r.wantSeats("after three minutes", streams[0])
							r.wantCourtesy()
							p.zap(streams[1])
							r.pass(2 * time.Minute)
							r.wantSeats("after zapping on", streams[1])
						})
					})
				}
			}
		}
	}
}

// TestZappingBackFromAServerThatAsksSeldom: between two re-checks of Flussonic nothing is heard of a stream, so that a
// player who is back on it is known by its next update alone.
func TestZappingBackFromAServerThatAsksSeldom(t *testing.T) {
	t.Parallel()
	for _, mode := range bothModes {
		for _, pace := range []time.Duration{2 * time.Second, 15 * time.Second, 25 * time.Second, 50 * time.Second, 100 * time.Second} {
			t.Run(fmt.Sprintf("%s/every %s", mode, pace), func(t *testing.T) {
				t.Parallel()
				inRoom(t, 1, 1, mode, func(r *room) {
					p := r.flussonic("anna")
					for range 3 {
						for _, s := range []string{"a", "b", "c", "a"} {
							p.zap(s)
							r.pass(pace)
						}
						r.pass(10 * time.Minute)
						r.wantSeats("after ten minutes", "a")
						p.zap("d")
						r.pass(10 * time.Minute)
						r.wantSeats("after another ten", "d")
					}
					r.wantCourtesy()
				})
			})
		}
	}
}

// TestOneBoxOnAstra: it is asked about once a channel, under a new number each time.
func TestOneBoxOnAstra(t *testing.T) {
	t.Parallel()
	for _, mode := range bothModes {
		inRoom(t, 2, 1, mode, func(r *room) {
			box := r.astra("anna")
			for i := range 41 {
				box.zap([]string{"a", "b@1", "c", "a", "b@1"}[i%5])
				r.pass(time.Duration(i%7) * time.Second)
			}
			r.wantSeats("after much zapping", "a")
			r.wantCourtesy()
		})
	}
}
