package edge

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/directive"
	"usher.internal/schemas/proto/usherv1"
	"usher.internal/services/edge/edgetest"
	"usher.internal/services/edge/internal/keep"
)

// kept is an edge with a file beside it, as it comes up: without a policy but what the file holds.
func kept(t *testing.T, path string) *bench {
	t.Helper()
	b := setup(t)
	b.view.Store(nil)
	b.viewed = make(chan struct{})
	b.cfg.State = path
	for _, err := range []error{b.openKeeper(t.Context()), b.recall(t.Context())} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = b.closeKeeper() }) // twice is no fault
	return b
}

// fresh is an edge with a policy, and a file that is new.
func fresh(t *testing.T) (b *bench, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "edge.state")
	b = kept(t, path)
	p := projection()
	b.usePolicy(t.Context(), p)
	b.keeper.projection(p)
	return b, path
}

// again kills the edge after its next write, and starts it with workers away.
func (b *bench) again(t *testing.T, path string) *bench {
	t.Helper()
	b.keepRound(t.Context())
	if err := b.closeKeeper(); err != nil {
		t.Fatal(err)
	}
	n := kept(t, path)
	n.workers.Decide = func(context.Context, *usherv1.AuthRequest) (*usherv1.AuthReply, error) { return nil, edgetest.ErrAway }
	return n
}

func viewer(uri string) *http.Request { return nginxRequest("web1", uri, "203.0.113.7", "VLC/3.0") }

func TestKnownViewersGoOnAfterARestartInAnOutage(t *testing.T) {
	t.Parallel()
	b, path := fresh(t)
	wantStatus(t, "opening", b.ask(viewer("/live/a/index.m3u8?token=t1")), 200)
	session := b.table.get(onlyKey(t, b)).grant.Load()
	n := b.again(t, path)
	wantStatus(t, "a segment under the lease", n.ask(segment("/live/a/1.ts")), 200)
	wantAsked(t, "under the lease", n, 0)
	got := n.table.get(onlyKey(t, n)).grant.Load()
	if got.session != session.session || got.user != "alice" || n.now().since(got.confirmed) > time.Minute {
		t.Errorf("the grant is %+v, want that of before", got)
	}
	wantStatus(t, "a stranger", n.ask(viewer("/live/b/index.m3u8?token=t2")), 403)
	if n.view.Load().revision != 1 {
		t.Errorf("policy revision %d", n.view.Load().revision)
	}
}

func onlyKey(t *testing.T, b *bench) access.Key {
	t.Helper()
	var keys []access.Key
	b.table.each(func(s *session) { keys = append(keys, s.key) })
	if len(keys) != 1 {
		t.Fatalf("%d sessions, want one", len(keys))
	}
	return keys[0]
}

func TestALeaseIsNotProlongedByARestart(t *testing.T) {
	t.Parallel()
	b, _ := fresh(t)
	b.ask(viewer("/live/a/index.m3u8?token=t1"))
	ses := b.table.get(onlyKey(t, b))
	w := b.wall()
	m := ses.message(w)
	for name, c := range map[string]struct {
		later time.Duration // the start after the writing
		fresh bool
	}{
		"soon after":             {time.Minute, true},
		"after its end":          {time.Hour, false},
		"the clock was set back": {-time.Hour, false},
	} {
		at := wall{w.now, w.at.Add(c.later)}
		got := restored(ses.key, m, at)
		if got.fresh(at.now) != c.fresh {
			t.Errorf("%s: fresh = %v", name, got.fresh(at.now))
		}
		if left := got.grant.Load().until.since(at.now); left > 3*time.Minute {
			t.Errorf("%s: a lease of %v", name, left)
		}
	}
}

func TestAnEndedSessionDoesNotComeBack(t *testing.T) {
	t.Parallel()
	b, path := fresh(t)
	wantStatus(t, "opening", b.ask(viewer("/live/a/index.m3u8?token=t1")), 200)
	key := onlyKey(t, b)
	id := b.table.get(key).grant.Load().session
	b.keepRound(t.Context())
	b.control(&usherv1.Control{Kind: "kill", SessionId: id[:], SessionKey: key[:], BarMs: 180_000, AtUnixMs: time.Now().UnixMilli()})
	n := b.again(t, path)
	if n.table.get(key) != nil {
		t.Fatal("the killed session is back")
	}
	wantReason(t, "the same viewer", n.ask(viewer("/live/a/index.m3u8?token=t1")), access.Killed)
}

func TestAZappedSessionsKeyIsKeptForWhoeverHasItNext(t *testing.T) {
	t.Parallel()
	b, path := fresh(t)
	b.ask(viewer("/live/a/index.m3u8?token=t1"))
	key := onlyKey(t, b)
	b.keepRound(t.Context())
	b.end(key, b.table.get(key).grant.Load().session, access.CloseZapped, b.now())
	ses := b.table.get(key)
	b.table.remove(ses)
	b.ask(viewer("/live/a/index.m3u8?token=t1"))
	if err := b.keepSessions(b.wall()); err != nil { // before the ends are written
		t.Fatal(err)
	}
	n := b.again(t, path)
	if n.table.get(key) == nil {
		t.Error("the new session under the key was forgotten with the old one")
	}
}

func TestBansHoldAfterARestart(t *testing.T) {
	t.Parallel()
	b, path := fresh(t)
	d := directive.Directive{ID: uuid.New(), Kind: directive.Ban, Action: directive.Deny, Node: "web1", At: time.Now(), Reason: "r", Author: "a"}
	over := d
	over.ID, over.Node = uuid.New(), "n1"
	b.control(d.Control(false, d.At))
	b.control(over.Control(false, d.At))
	b.control(over.Control(true, d.At))
	n := b.again(t, path)
	wantReason(t, "a free stream", n.ask(viewer("/free/a/index.m3u8")), access.Banned)
	if n.book.Set().Len() != 1 {
		t.Errorf("%d bans in force, want 1", n.book.Set().Len())
	}
	n = n.again(t, path)
	if n.book.Set().Len() != 1 {
		t.Errorf("%d bans in force after the second restart, want 1", n.book.Set().Len())
	}
}

func TestSilenceWhileTheEdgeWasAway(t *testing.T) {
	t.Parallel()
	b, path := fresh(t)
	b.ask(viewer("/live/a/index.m3u8?token=t1"))
	b.keepRound(t.Context())
	life := make([]byte, 8)
	for i, ms := 7, time.Now().Add(-2*time.Minute).UnixMilli(); i >= 0; i, ms = i-1, ms>>8 {
		life[i] = byte(ms)
	}
	if err := b.keeper.write([]keep.Change{{Bucket: keep.Life, Key: lifeKey, Value: life}}); err != nil {
		t.Fatal(err)
	}
	_ = b.closeKeeper()
	n := kept(t, path)
	if got := n.table.count.Load(); got != 0 {
		t.Errorf("%d sessions go on after two minutes of silence, want none", got)
	}
}

func TestTheJournalWaitsInTheFile(t *testing.T) {
	t.Parallel()
	b, path := fresh(t)
	b.Service.journal.retry = time.Millisecond
	b.journal.Fail(errors.New("JetStream is away"))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.Service.journal.run(ctx) }()
	for range 3 { // one row a minute, and its repeats
		b.ask(nginxRequest("nx", "/a", "203.0.113.7", "x"))
	}
	b.tallies.flush(b.now(), b.Service.journal.add)
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if d := b.Service.journal.dropped.Load(); d != 0 {
		t.Errorf("%d entries were dropped", d)
	}
	n := b.again(t, path)
	ctx, stop = context.WithCancel(context.Background())
	go func() { done <- n.Service.journal.run(ctx) }()
	rows := waitRows(t, n, 1)
	stop()
	<-done
	if rows[0].GetReason() != string(access.UnknownNode) || n.journal.Repeats(uuid.UUID(rows[0].GetId())) != 2 {
		t.Errorf("row %v with %d repeats, want unknown_node with 2", rows[0], n.journal.Repeats(uuid.UUID(rows[0].GetId())))
	}
	if left := n.keeper.store.Len(keep.Journal); left != 0 {
		t.Errorf("%d entries are left in the file", left)
	}
}

func waitRows(t *testing.T, b *bench, want int) []*usherv1.DecisionRow {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if rows := b.journal.Rows(); len(rows) >= want && b.Service.journal.waiting.Load() == 0 {
			return rows
		}
		<-time.After(time.Millisecond)
	}
	t.Fatalf("%d rows, want %d", len(b.journal.Rows()), want)
	return nil
}

func TestADamagedFileDoesNotStopTheEdge(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "edge.state")
	if err := os.WriteFile(path, []byte("not a database"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := kept(t, path)
	b.usePolicy(t.Context(), projection())
	wantStatus(t, "opening", b.ask(viewer("/live/a/index.m3u8?token=t1")), 200)
	b.cfg.State = filepath.Join(path, "under a file")
	if err := b.openKeeper(t.Context()); err == nil {
		t.Error("a file that cannot be made is no error")
	}
}

func TestSettle(t *testing.T) {
	t.Parallel()
	b, path := fresh(t)
	n := b.again(t, path)
	if !n.recalled.Load() {
		t.Fatal("the edge does not know that it was restarted")
	}
	begin := time.Now()
	go func() {
		n.lastTick.Store(int64(n.now()))
		close(n.ticked)
	}()
	n.settle(time.Now().Add(time.Minute))
	if took := time.Since(begin); took > settleTime/2 {
		t.Errorf("settle took %v with a tick", took)
	}
	n = n.again(t, path)
	n.began = n.now().add(-settleTime)
	n.settle(time.Now().Add(time.Hour)) // hangs if it waits for a tick
}
