package edge

import (
	"net/http"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
)

// zapTo lets the device that plays /hls/a open /hls/b, as the ledger and the control stream tell it.
func zapTo(t *testing.T, b *bench, from, to string) {
	t.Helper()
	wantStatus(t, "opening "+to, b.ask(segment("/hls/"+to+"/i.m3u8?token=t-"+to)), http.StatusOK)
	old, next := b.sessionOn(t, from), b.sessionOn(t, to)
	id := old.grant.Load().session
	b.control(&usherv1.Control{
		Kind: "zap", SessionId: id[:], SessionKey: old.key[:], ByKey: next.key[:], AtUnixMs: time.Now().UnixMilli(),
	})
}

// sessionOn is the only session on a stream.
func (b *bench) sessionOn(t *testing.T, stream string) *session {
	t.Helper()
	var found *session
	b.table.each(func(s *session) {
		if s.stream.Value() == "hls/"+stream {
			found = s
		}
	})
	if found == nil {
		t.Fatalf("no session on %s", stream)
	}
	return found
}

// plays asks for a segment of each stream every two seconds for so long.
func (b *bench) plays(t *testing.T, d time.Duration, streams ...string) {
	t.Helper()
	for range d / (2 * time.Second) {
		time.Sleep(2 * time.Second)
		for _, s := range streams {
			wantStatus(t, "segment of "+s, b.ask(segment("/hls/"+s+"/1.ts")), http.StatusOK)
		}
	}
}

func TestZappingBack(t *testing.T) {
	t.Parallel()
	for name, trailing := range map[string]time.Duration{
		"the other stream falls silent at once":    0,
		"the other stream's last segments come on": 20 * time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timed(t, func(t *testing.T, b *bench) {
				b.ask(segment("/hls/a/i.m3u8?token=t-a"))
				zapTo(t, b, "a", "b")
				b.plays(t, 4*time.Second, "b")
				b.plays(t, trailing, "a", "b")
				asked := len(b.workers.Asked())
				b.plays(t, doubt-trailing, "a")
				wantAsked(t, "back on the first stream", b, asked+1)
				if m := b.workers.Asked()[asked]; m.GetStream() != "hls/a" || m.GetStillPlaying() {
					t.Errorf("question = %v, want a plain one, which zaps the other stream", m)
				}
			})
		})
	}
}

func TestPlayingBothIsTwoViewers(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.ask(segment("/hls/a/i.m3u8?token=t-a"))
		zapTo(t, b, "a", "b")
		asked := len(b.workers.Asked())
		b.plays(t, doubt+4*time.Second, "a", "b")
		wantAsked(t, "playing both", b, asked+1)
		if m := b.workers.Asked()[asked]; m.GetStream() != "hls/a" || !m.GetStillPlaying() {
			t.Errorf("question = %v, want one that is still playing", m)
		}
	})
}

func TestZappingThroughStreams(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		b.ask(segment("/hls/a/i.m3u8?token=t-a"))
		zapTo(t, b, "a", "b")
		b.plays(t, 2*time.Second, "a", "b")
		zapTo(t, b, "b", "c")
		if got := b.rival(b.sessionOn(t, "a")); got == nil || got.stream.Value() != "hls/c" {
			t.Errorf("rival of the first stream = %v, want the session on the third", got)
		}
		b.sessionOn(t, "a").rival.Store(nil)
		b.setRival(b.sessionOn(t, "a").key, []byte("short"), false)
		if got := b.rival(b.sessionOn(t, "a")); got != nil {
			t.Errorf("rival by a malformed key = %v, want none", got)
		}
		b.setRival(access.Key{9}, make([]byte, 16), false)
	})
}
