package pgstore

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"
)

// played is a session that is over, as history holds it.
type played struct {
	realm, user, stream, node string
	opened, seen, closed      time.Time
	reason                    string
	bytes, playing            int64
}

// end is when it ended as far as anybody knows.
func (p *played) end() time.Time {
	end := p.closed
	if p.reason == "idle" || p.reason == "expired" {
		end = p.seen
	}
	if end.Before(p.opened) {
		return p.opened
	}
	return end
}

type usageKey struct{ day, realm, user, stream, node string }

type usageSum struct{ sessions, ms, playing, bytes, peak int64 }

func dayOf(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// modelUsage is what usage must be, worked out session by session.
func modelUsage(all []played) map[usageKey]usageSum {
	out := map[usageKey]usageSum{}
	for i := range all {
		p := &all[i]
		first, end := dayOf(p.opened), p.end()
		total := end.Sub(p.opened)
		var ms, playing, bytes int64 // of the days before
		for day := first; day.Equal(first) || day.Before(end); day = day.AddDate(0, 0, 1) {
			k := usageKey{day.Format(time.DateOnly), p.realm, p.user, p.stream, p.node}
			sum := out[k]
			if day.Equal(first) {
				sum.sessions++
			}
			upTo := min(day.AddDate(0, 0, 1).Sub(p.opened), total)
			sum.ms += upTo.Milliseconds() - ms
			sum.bytes += share(p.bytes, upTo, total) - bytes
			sum.playing += share(p.playing, upTo, total) - playing
			ms, bytes, playing = upTo.Milliseconds(), share(p.bytes, upTo, total), share(p.playing, upTo, total)
			out[k] = sum
		}
	}
	return out
}

func share(n int64, part, total time.Duration) int64 {
	if part == total {
		return n
	}
	x := new(big.Int).Mul(big.NewInt(n), big.NewInt(part.Microseconds()))
	return x.Quo(x, big.NewInt(total.Microseconds())).Int64()
}

// modelPeak is the most sessions at one moment of a day among those that are chosen: the count at each beginning.
func modelPeak(all []played, day time.Time, chosen func(*played) bool) int64 {
	in := func(p *played) (from, to time.Time) {
		from, to = p.opened, p.end()
		if least := p.opened.Add(time.Millisecond); to.Before(least) {
			to = least
		}
		return from, to
	}
	var peak int64
	for i := range all {
		at, to := in(&all[i])
		if at.Before(day) && to.After(day) {
			at = day
		}
		if !chosen(&all[i]) || !dayOf(at).Equal(day) {
			continue
		}
		var n int64
		for j := range all {
			if from, to := in(&all[j]); chosen(&all[j]) && !from.After(at) && to.After(at) {
				n++
			}
		}
		peak = max(peak, n)
	}
	return peak
}

// write puts sessions into history as the ledger does.
func (h harness) write(all ...played) []uuid.UUID {
	h.t.Helper()
	ids := make([]uuid.UUID, len(all))
	b := &pgx.Batch{}
	for i := range all {
		p := &all[i]
		ids[i] = uuid.New()
		b.Queue(`INSERT INTO usher.session_history (closed_at, session_id, decision_id, opened_at, last_seen_at, close_reason, requests,
			bytes, rechecks, realm, user_id, stream, device, node, caller, region, edge, ip, user_agent, country, playing_ms)
			VALUES ($1, $2, $2, $3, $4, $5, 1, $6, 0, $7, NULLIF($8, ''), $9, 'tv', $10, 'nginx', 'r1', 'e1', '192.0.2.77', 'VLC/3.0.18', 'DE', NULLIF($11::bigint, 0))`,
			p.closed, ids[i], p.opened, p.seen, p.reason, p.bytes, p.realm, p.user, p.stream, p.node, p.playing)
	}
	if err := h.store.pool.SendBatch(context.Background(), b).Close(); err != nil {
		h.t.Fatalf("writing history: %v", err)
	}
	return ids
}

func (h harness) usage() map[usageKey]usageSum {
	h.t.Helper()
	out := map[usageKey]usageSum{}
	rows, err := h.store.pool.Query(context.Background(),
		"SELECT day::text, realm, user_id, stream, node, sessions, ms, playing_ms, bytes, peak FROM usher.usage_day")
	if err != nil {
		h.t.Fatal(err)
	}
	var k usageKey
	var s usageSum
	_, err = pgx.ForEachRow(rows, []any{&k.day, &k.realm, &k.user, &k.stream, &k.node, &s.sessions, &s.ms, &s.playing, &s.bytes, &s.peak}, func() error {
		out[k] = s
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// peaks are usher.usage_peak as "day kind realm/name".
func (h harness) peaks() map[string]int64 {
	h.t.Helper()
	out := map[string]int64{}
	rows, err := h.store.pool.Query(context.Background(), "SELECT day::text || ' ' || kind || ' ' || realm || '/' || name, peak FROM usher.usage_peak")
	if err != nil {
		h.t.Fatal(err)
	}
	var k string
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&k, &n}, func() error { out[k] = n; return nil }); err != nil {
		h.t.Fatal(err)
	}
	return out
}

func (h harness) roll() {
	h.t.Helper()
	if _, err := h.store.RollUsage(context.Background()); err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.store.RollPeaks(context.Background()); err != nil {
		h.t.Fatal(err)
	}
}

// clearUsage makes room for the next try on the same database.
func (h harness) clearUsage() {
	for _, table := range []string{"session_history", "usage_day", "usage_peak", "usage_due", "usage_seat", "usage_peak_due"} {
		h.exec("DELETE FROM usher." + table) // to truncate so many partitions takes far longer
	}
}

// modelPeaks are the peaks of everything that is in usage, and of the rows themselves.
func modelPeaks(all []played, rows map[usageKey]usageSum) map[string]int64 {
	out := map[string]int64{}
	add := func(day time.Time, what string, chosen func(*played) bool) {
		if n := modelPeak(all, day, chosen); n > 0 {
			out[day.Format(time.DateOnly)+" "+what] = n
		}
	}
	for k, sum := range rows {
		day, _ := time.Parse(time.DateOnly, k.day)
		sum.peak = modelPeak(all, day, func(p *played) bool {
			return p.realm == k.realm && p.user == k.user && p.stream == k.stream && p.node == k.node
		})
		rows[k] = sum
		if k.user != "" {
			add(day, "user "+k.realm+"/"+k.user, func(p *played) bool { return p.realm == k.realm && p.user == k.user })
		}
		add(day, "stream "+k.realm+"/"+k.stream, func(p *played) bool { return p.realm == k.realm && p.stream == k.stream })
		add(day, "stream */"+k.stream, func(p *played) bool { return p.realm != "probes" && p.stream == k.stream })
		add(day, "node "+k.realm+"/"+k.node, func(p *played) bool { return p.realm == k.realm && p.node == k.node })
		add(day, "node */"+k.node, func(p *played) bool { return p.realm != "probes" && p.node == k.node })
		add(day, "realm "+k.realm+"/", func(p *played) bool { return p.realm == k.realm })
		add(day, "realm */", func(p *played) bool { return p.realm != "probes" })
	}
	return out
}

func sameMaps[K cmp.Ordered, V comparable](t interface{ Fatalf(string, ...any) }, what string, got, want map[K]V) {
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if got[k] != want[k] {
			t.Fatalf("%s of %v = %+v, want %+v", what, k, got[k], want[k])
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			t.Fatalf("%s has %v = %+v, want none", what, k, got[k])
		}
	}
}

// flat makes keys that can be ordered.
func flat(m map[usageKey]usageSum) map[string]usageSum {
	out := map[string]usageSum{}
	for k, v := range m {
		out[fmt.Sprint(k)] = v
	}
	return out
}

func someSession(t *rapid.T, now time.Time) played {
	p := played{
		realm:  rapid.SampledFrom([]string{"main", "tv", "probes"}).Draw(t, "realm"),
		user:   rapid.SampledFrom([]string{"", "anna", "berta"}).Draw(t, "user"),
		stream: rapid.SampledFrom([]string{"news", "sport"}).Draw(t, "stream"),
		node:   rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "node"),
		reason: rapid.SampledFrom([]string{"stopped", "idle", "expired", "zapped"}).Draw(t, "reason"),
		bytes:  rapid.Int64Range(0, 1<<50).Draw(t, "bytes"), playing: rapid.Int64Range(0, 1<<40).Draw(t, "playing"),
	}
	// Often at the same moments, and at midnight itself.
	minutes := rapid.OneOf(rapid.IntRange(0, 2*24*60), rapid.SampledFrom([]int{0, 24 * 60, 24*60 - 1}))
	p.opened = dayOf(now).AddDate(0, 0, -2).Add(time.Duration(minutes.Draw(t, "opened")) * time.Minute)
	length := rapid.OneOf(rapid.IntRange(0, 20*60), rapid.SampledFrom([]int{0, 60, 24 * 60})).Draw(t, "length")
	p.closed = p.opened.Add(time.Duration(length)*time.Minute + time.Duration(rapid.IntRange(0, 1).Draw(t, "odd"))*1234567*time.Microsecond)
	if p.closed.After(now) {
		p.closed = now.Truncate(time.Microsecond)
	}
	if p.closed.Before(p.opened) {
		p.opened = p.closed
	}
	p.seen = p.opened.Add(p.closed.Sub(p.opened) / time.Duration(rapid.IntRange(1, 3).Draw(t, "seen"))).Truncate(time.Microsecond)
	return p
}

// Whatever was played, by whomever, over midnights, told late and told again: usage is what the model works out session by
// session, also when those who count die in the middle.
func TestUsageIsTheModel(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	now := time.Now().UTC()
	rapid.Check(t, func(rt *rapid.T) {
		h.clearUsage()
		all := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) played { return someSession(t, now) }), 1, 12).Draw(rt, "sessions")
		var ids []uuid.UUID
		for i := range all {
			ids = append(ids, h.write(all[i])...)
			switch rapid.IntRange(0, 4).Draw(rt, "meanwhile") {
			case 0:
				h.roll()
			case 1:
				h.dies(rapid.SampledFrom([]string{"SELECT usher.roll_usage(2)", "SELECT usher.roll_peaks(current_date - 1)"}).Draw(rt, "dies in"))
			}
		}
		h.roll()
		h.roll()
		want := modelUsage(all)
		peaks := modelPeaks(all, want)
		sameMaps(rt, "usage", flat(h.usage()), flat(want))
		sameMaps(rt, "peaks", h.peaks(), peaks)

		// What comes late raises the sums by the difference, once.
		i := rapid.IntRange(0, len(all)-1).Draw(rt, "late")
		total := h.total()
		for range 2 {
			h.exec("UPDATE usher.session_history SET bytes = greatest(bytes, $2) WHERE session_id = $1", [16]byte(ids[i]), all[i].bytes+1000)
			h.roll()
		}
		if got := h.total(); got.bytes != total.bytes+1000 || got.ms != total.ms || got.sessions != total.sessions {
			rt.Fatalf("after late totals usage is %+v, was %+v: want 1000 bytes more", got, total)
		}
	})
}

func (h harness) total() (sum usageSum) {
	for _, s := range h.usage() {
		sum.sessions, sum.ms, sum.bytes, sum.playing = sum.sessions+s.sessions, sum.ms+s.ms, sum.bytes+s.bytes, sum.playing+s.playing
	}
	return sum
}

// dies begins to count and loses its connection before the commit.
func (h harness) dies(sql string) {
	h.t.Helper()
	ctx := context.Background()
	conn, err := h.store.pool.Acquire(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, "BEGIN"); err != nil {
		h.t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, sql); err != nil {
		h.t.Fatal(err)
	}
	_ = conn.Conn().PgConn().Conn().Close() // as when its process is killed: no word to the server
}

// The end that a node tells late moves the row, also to the day before, and the time with it.
func TestUsageOfAnEndThatIsToldLate(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	midnight := dayOf(time.Now())
	p := played{realm: "main", user: "anna", stream: "news", node: "n1", reason: "stopped", bytes: 10,
		opened: midnight.Add(-time.Hour), seen: midnight.Add(-time.Hour), closed: midnight.Add(time.Second)}
	ids := h.write(p)
	h.roll()
	h.exec("UPDATE usher.session_history SET closed_at = $2, bytes = 30, playing_ms = 5 WHERE session_id = $1", [16]byte(ids[0]), midnight.Add(-30*time.Minute))
	h.roll()
	got := h.total()
	if want := (usageSum{sessions: 1, ms: (30 * time.Minute).Milliseconds(), bytes: 30, playing: 5}); got != want {
		t.Errorf("usage = %+v, want %+v", got, want)
	}
	h.write(played{realm: "main", user: "anna", stream: "sport", node: "n1", reason: "stopped",
		opened: midnight.Add(-29 * time.Minute), seen: midnight.Add(-29 * time.Minute), closed: midnight.Add(-20 * time.Minute)})
	h.roll()
	if n := h.peaks()[midnight.AddDate(0, 0, -1).Format(time.DateOnly)+" user main/anna"]; n != 1 {
		t.Errorf("anna's peak = %d, want 1: the first had ended", n)
	}
}

// A restreamer who never leaves is in each day's usage, and nothing of him is counted again when he does.
func TestUsageOfALiveSessionOverMidnights(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	open := h.opened("news")
	midnight := dayOf(time.Now())
	from := midnight.Add(-30 * time.Hour)
	h.exec("UPDATE usher.seat SET opened_at = $1, last_seen_at = $2, bytes = 3000", from, midnight.Add(time.Millisecond))
	for range 3 {
		h.roll()
	}
	got := h.total()
	if want := (usageSum{sessions: 1, ms: (30 * time.Hour).Milliseconds() + 1, bytes: 3000}); got != want {
		t.Fatalf("usage of the live session = %+v, want %+v", got, want)
	}
	h.exec("UPDATE usher.seat SET bytes = 5000")
	h.close(open.Session, "stopped")
	for range 2 {
		h.roll()
	}
	row, err := h.store.Session(t.Context(), open.Session)
	if err != nil {
		t.Fatal(err)
	}
	got = h.total()
	if want := (usageSum{sessions: 1, ms: row.ClosedAt.Sub(from).Milliseconds(), bytes: 5000}); got.bytes != want.bytes || got.sessions != 1 || got.ms < want.ms-1 || got.ms > want.ms {
		t.Errorf("usage = %+v, want %+v", got, want)
	}
	var left int
	if err := h.store.pool.QueryRow(t.Context(), "SELECT count(*) FROM usher.usage_seat").Scan(&left); err != nil || left != 0 {
		t.Errorf("%d rows in usage_seat, %v; want none of a closed session", left, err)
	}
}
