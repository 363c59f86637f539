package edge

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/edgetest"
)

const (
	hour = int64(3600)
	week = 7 * 24 * hour
)

// deepBench is an edge whose workers let everybody into a week of the archive.
func deepBench(t *testing.T, b *bench) {
	t.Helper()
	b.workers.Decide = func(_ context.Context, m *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
		r := &access.Reach{Depth: time.Duration(week) * time.Second}
		if a := m.GetArchive(); a != nil {
			asked := access.Archive{Kind: access.Range, Start: a.GetStart(), Length: a.GetLength(), Since: a.GetSince()}
			if _, ok := r.Opens(asked, time.Now()); !ok {
				return edgetest.Deny(m, string(access.NoArchive)), nil
			}
		}
		reply := edgetest.Allow(m)
		reply.Reach = &usherv1.Reach{DepthS: week}
		return reply, nil
	}
}

func archived(from, length int64) *http.Request {
	return segment(fmt.Sprintf("/bbc/index-%d-%d.m3u8?token=T1", from, length))
}

func pieceOf(at int64) *http.Request {
	return segment("/bbc/tracks-v1a1/" + time.Unix(at, 0).UTC().Format("2006/01/02/15/04/05") + "-06000.ts")
}

// TestMemoryOpensOnlyWhatIsWithinReach has a viewer watch live, and then ask for the archive.
func TestMemoryOpensOnlyWhatIsWithinReach(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		deepBench(t, b)
		now := time.Now().Unix()
		wantStatus(t, "live", b.ask(segment("/bbc/index.m3u8?token=T1")), http.StatusOK)
		wantStatus(t, "a live segment", b.ask(pieceOf(now-20)), http.StatusOK)
		wantStatus(t, "a part within his depth", b.ask(archived(now-24*hour, hour)), http.StatusOK)
		wantStatus(t, "a segment of it", b.ask(pieceOf(now-24*hour+60)), http.StatusOK)
		wantAsked(t, "all of it by memory", b, 1)

		wantReason(t, "a part beyond his depth", b.ask(archived(now-week-hour, hour)), access.NoArchive)
		wantAsked(t, "that is for a worker", b, 2)
		wantReason(t, "once more", b.ask(archived(now-week-hour, hour)), access.NoArchive)
		wantAsked(t, "a denial is remembered", b, 2)
		wantReason(t, "a segment beyond it", b.ask(pieceOf(now-2*week)), access.NoArchive)
		wantReason(t, "another one", b.ask(pieceOf(now-3*week)), access.NoArchive)
		wantAsked(t, "each is a question of its own", b, 4)

		wantStatus(t, "live goes on", b.ask(segment("/bbc/1.ts")), http.StatusOK)
		wantStatus(t, "also with its token", b.ask(segment("/bbc/index.m3u8?token=T1")), http.StatusOK)
		wantAsked(t, "by the session that he had", b, 4)
	})
}

// TestWhatIsPlayedDoesNotLeaveTheDepth has a viewer begin at the end of his depth and pause.
func TestWhatIsPlayedDoesNotLeaveTheDepth(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		deepBench(t, b)
		begin := time.Now().Unix() - week + 10
		wantStatus(t, "the playlist", b.ask(archived(begin, hour)), http.StatusOK)
		for at := range int64(10) {
			time.Sleep(40 * time.Second)
			wantStatus(t, fmt.Sprint("segment ", at), b.ask(pieceOf(begin+6*at)), http.StatusOK)
		}
		if last := b.workers.Asked(); len(last) < 2 || last[len(last)-1].GetArchive().GetSince() == 0 {
			t.Errorf("a worker was asked %d times, and not told since when the part is played", len(last))
		}
		wantReason(t, "what lies beside it", b.ask(pieceOf(begin-60)), access.NoArchive)
	})
}

// TestNoWorkerOpensNoArchive has the workers go away while a session runs.
func TestNoWorkerOpensNoArchive(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		deepBench(t, b)
		now := time.Now().Unix()
		wantStatus(t, "live", b.ask(segment("/bbc/index.m3u8?token=T1")), http.StatusOK)
		b.workers.Decide = func(context.Context, *usherv1.AuthRequest) (*usherv1.AuthReply, error) {
			return nil, edgetest.ErrAway
		}
		wantReason(t, "beyond the depth", b.ask(archived(now-2*week, hour)), access.NoArchive)
		wantStatus(t, "live", b.ask(segment("/bbc/1.ts")), http.StatusOK)
		wantStatus(t, "within it", b.ask(archived(now-hour, 60)), http.StatusOK)
	})
}

// TestFlussonicIsToldTheWindows has a session say in its answer what it may have.
func TestFlussonicIsToldTheWindows(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, b *bench) {
		deepBench(t, b)
		for _, change := range []string{"", updateSession, "dvr=true&" + updateSession} {
			res := b.ask(flussonicSession(change))
			wantStatus(t, change, res, http.StatusOK)
			var body [256]byte
			n, _ := res.Body.Read(body[:])
			want := fmt.Sprintf(`{"allowed_dvr_ranges":[{"opened_at":%d}]}`, time.Now().Unix()-week)
			if got := string(body[:n]); got != want {
				t.Errorf("%s is answered %s, want %s", change, got, want)
			}
		}
		wantAsked(t, "one session", b, 1)
	})
}
