package pgstore

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"usher.internal/libs/policy"
)

// all reads a query's rows as text, one a line.
func (h harness) all(sql string, args ...any) []string {
	h.t.Helper()
	rows, err := h.store.pool.Query(h.t.Context(), sql, args...)
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		values, err := row.Values()
		return strings.Trim(fmt.Sprint(values), "[]"), err
	})
	if err != nil {
		h.t.Fatalf("%s: %v", sql, err)
	}
	return out
}

func TestStatistics(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	noon := dayOf(time.Now()).AddDate(0, 0, -1).Add(12 * time.Hour)
	at := func(minute int) time.Time { return noon.Add(time.Duration(minute) * time.Minute) }
	play := func(realm, user, stream string, from, to int) played {
		return played{realm: realm, user: user, stream: stream, node: "n1", opened: at(from), seen: at(to), closed: at(to), reason: "stopped", bytes: 100}
	}
	h.write(
		play("main", "anna", "news", 0, 10), play("main", "anna", "news", 12, 20), // one view
		play("main", "anna", "news", 40, 50),
		play("main", "berta", "news", 5, 15), play("probes", "monitor", "news", 0, 60),
		play("main", "", "sport", 0, 1), play("main", "", "sport", 3, 4), // one address with one player
	)
	h.roll()
	day := noon.Format(time.DateOnly)
	for _, c := range []struct {
		sql  string
		want []string
	}{
		{"SELECT stream, sessions, seconds, bytes, peak, viewers, views FROM usher.stats_streams WHERE day = $1::date ORDER BY 1", []string{"news 4 2280 400 2 2 3", "sport 2 120 200 1 1 1"}},
		{"SELECT user_id, sessions, seconds, peak FROM usher.stats_users WHERE day = $1::date ORDER BY 1", []string{"anna 3 1680 1", "berta 1 600 1"}},
		{"SELECT country, sessions, viewers FROM usher.stats_countries WHERE day = $1::date", []string{"DE 6 3"}},
		{"SELECT family, sessions, viewers FROM usher.stats_devices WHERE day = $1::date", []string{"VLC 6 3"}},
		{"SELECT caller, sessions, seconds FROM usher.stats_callers WHERE day = $1::date", []string{"nginx 6 2400"}},
		{"SELECT realm, name, peak FROM usher.usage_peaks WHERE day = $1::date AND kind = 'realm' ORDER BY 1", []string{"*  2", "main  2", "probes  1"}},
		{"SELECT name, user_name, ip, duration, bytes_sent, reason FROM usher.sessions_history WHERE user_id = 'berta' AND opened_at::date = $1::date", []string{"news berta 192.0.2.77 600 100 stopped"}},
		{"SELECT extract(minute FROM at)::int, sessions FROM usher.concurrency($1::timestamptz + interval '12 hours', $1::timestamptz + interval '12 hours 25 minutes', '5 minutes', 'main', 'news') ORDER BY 1",
			[]string{"0 1", "5 2", "10 2", "15 1", "20 0"}},
		{"SELECT max(sessions) FROM usher.concurrency($1::timestamptz, $1::timestamptz + interval '1 day', p_realm => 'probes')", []string{"1"}},
	} {
		if got := h.all(c.sql, day); !slices.Equal(got, c.want) {
			t.Errorf("%s\n= %q, want %q", c.sql, got, c.want)
		}
	}
}

// What readers may see is what the README names.
func TestReadersSeeTheViews(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ctx := t.Context()
	for _, from := range []string{"sessions", "decisions", "usage", "usage_peaks", "sessions_history", "audience", "stats_users", "stats_streams", "stats_countries", "stats_devices",
		"stats_callers", "audit", "concurrency(now() - interval '1 day', now())"} {
		err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL ROLE usher_reader"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "SELECT count(*) FROM usher."+from)
			return err
		})
		if err != nil {
			t.Errorf("a reader and usher.%s: %v", from, err)
		}
	}
	if _, err := s.pool.Exec(ctx, "SET ROLE usher_reader; SELECT 1 FROM usher.session_history"); err == nil {
		t.Error("a reader may read the table behind")
	}
}

func TestDeviceFamilies(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for agent, want := range map[string]string{
		"": "none",
		"Mozilla/5.0 (QtEmbedded; U; Linux; C) AppleWebKit/533.3 (KHTML, like Gecko) MAG200 stbapp ver: 4 rev: 2721 Mobile Safari/533.3": "MAG",
		"Mozilla/5.0 (SMART-TV; Linux; Tizen 5.0) AppleWebKit/537.36 (KHTML, like Gecko) Version/5.0 TV Safari/537.36":                   "Samsung TV",
		"Mozilla/5.0 (Web0S; Linux/SmartTV) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/79.0.3945.79 Safari/537.36 WebAppManager":      "LG TV",
		"Dalvik/2.1.0 (Linux; U; Android 9; AFTMM Build/PS7633)":                                                                         "Fire TV",
		"VLC/3.0.18 LibVLC/3.0.18": "VLC", "Lavf/58.76.100": "FFmpeg", "Kodi/20.2 (Linux; Android 11)": "Kodi", "TiviMate/4.7.0 (Android 9)": "TiviMate",
		"ExoPlayerLib/2.18.1": "ExoPlayer", "Roku/DVP-12.0": "Roku",
		"AppleCoreMedia/1.0.0.20G75 (iPhone; U; CPU OS 16_6 like Mac OS X; en_us)":                                        "iPhone, iPad",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36": "Chrome",
		"curl/8.5": "script", "Wink/1.31": "other",
	} {
		if got := h.all("SELECT usher.device_family($1)", agent); got[0] != want {
			t.Errorf("%q is %q, want %q", agent, got[0], want)
		}
	}
}

// pastDay makes partitions of a day long past.
func (h harness) pastDay(day time.Time) {
	h.t.Helper()
	for _, parent := range []string{"decision", "decision_steps", "session_history"} {
		h.exec(fmt.Sprintf("CREATE TABLE usher.%s_%s PARTITION OF usher.%[1]s FOR VALUES FROM ('%[3]sZ') TO ('%[4]sZ')",
			parent, day.Format("20060102"), day.Format(time.DateOnly), day.AddDate(0, 0, 1).Format(time.DateOnly)))
	}
}

func TestAddressesAreShortened(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	day := dayOf(time.Now()).AddDate(0, 0, -40)
	h.pastDay(day)
	old := played{realm: "main", user: "anna", stream: "news", node: "n1", opened: day, seen: day, closed: day.Add(time.Hour), reason: "stopped"}
	young := old
	young.opened, young.closed = time.Now().Add(-time.Hour), time.Now()
	h.write(old, old, young)
	h.exec("UPDATE usher.session_history SET ip = '2001:db8:1:2:3::4', device = '2001:db8:1:2:: VLC/3' WHERE session_id = (SELECT min(session_id::text)::uuid FROM usher.session_history WHERE closed_at < now() - interval '1 day')")
	h.exec("UPDATE usher.session_history SET device = '192.0.2.77 VLC/3' WHERE ip = '192.0.2.77'")
	h.exec(`INSERT INTO usher.decision (at, decision_id, policy_revision, duration_us, outcome, reason, region, edge, node, caller, stream, realm, ip)
		VALUES ($1, $2, 1, 1, 'deny', 'x', 'r', 'e', 'n', 'c', 's', 'main', '198.51.100.9')`, day.Add(time.Hour), [16]byte(newID(t)))
	keep := policy.Retention{Addresses: 30 * 24 * time.Hour}
	if m, err := h.store.Maintain(t.Context(), keep); err != nil || m.Shortened != 2 {
		t.Fatalf("Maintain = %+v, %v; want two partitions shortened", m, err)
	}
	want := []string{"192.0.2.0/32 192.0.2.0 VLC/3", "192.0.2.77/32 192.0.2.77 VLC/3", "2001:db8:1::/128 2001:db8:1:: VLC/3"}
	if got := h.all("SELECT ip, device FROM usher.session_history ORDER BY 1"); !slices.Equal(got, want) {
		t.Errorf("sessions = %q, want %q", got, want)
	}
	if got := h.all("SELECT host(ip) FROM usher.decision"); got[0] != "198.51.100.0" {
		t.Errorf("decision's address = %v", got)
	}
	if m, err := h.store.Maintain(t.Context(), keep); err != nil || m.Shortened != 0 {
		t.Errorf("Maintain again = %+v, %v; want nothing to do", m, err)
	}
}

func TestDropOldest(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	old, older := dayOf(time.Now()).AddDate(0, 0, -10), dayOf(time.Now()).AddDate(0, 0, -11)
	for _, day := range []time.Time{old, older} {
		h.pastDay(day)
		h.write(played{realm: "main", user: "anna", stream: "news", node: "n1", opened: day, seen: day, closed: day.Add(time.Hour), reason: "stopped", bytes: 5})
		h.exec(`INSERT INTO usher.decision_steps VALUES ($1, $2, '[]')`, day.Add(time.Hour), [16]byte(newID(t)))
		h.exec(`INSERT INTO usher.decision (at, decision_id, policy_revision, duration_us, outcome, reason, region, edge, node, caller, stream, realm)
			VALUES ($1, $2, 1, 1, 'deny', 'x', 'r', 'e', 'n', 'c', 's', 'main')`, day.Add(time.Hour), [16]byte(newID(t)))
	}
	h.opened("news")
	h.exec("UPDATE usher.seat SET opened_at = now(), last_seen_at = now()") // in the first hour of a day it has seen a midnight, and counts
	today := played{realm: "main", user: "anna", stream: "news", node: "n1", opened: time.Now(), seen: time.Now(), closed: time.Now(), reason: "stopped", bytes: 1}
	h.write(today)
	want := []string{"decision_steps_" + older.Format("20060102"), "decision_steps_" + old.Format("20060102"), "decision_" + older.Format("20060102"),
		"decision_" + old.Format("20060102"), "session_history_" + older.Format("20060102"), "session_history_" + old.Format("20060102")}
	var got []string
	for {
		d, ok, err := h.store.DropOldest(t.Context(), "r1")
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		got = append(got, d.Table)
	}
	if !slices.Equal(got, want) {
		t.Errorf("dropped %v, want %v", got, want)
	}
	if audited := h.all("SELECT detail->>'table' FROM usher.audit WHERE author = 'r1' ORDER BY id"); !slices.Equal(audited, want) {
		t.Errorf("audit = %v, want an entry each", audited)
	}
	if sum := h.total(); sum.sessions != 3 || sum.bytes != 11 || len(h.Live()) != 1 {
		t.Errorf("usage = %+v and %d seats: they never go", sum, len(h.Live()))
	}
}

func TestExportIsTheSameAfterRetention(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	day := dayOf(time.Now()).AddDate(0, 0, -100)
	h.pastDay(day)
	for i := range 5 {
		from := day.Add(time.Duration(i) * time.Minute)
		h.write(played{realm: "main", user: fmt.Sprint("u", i%2), stream: "news", node: fmt.Sprint("n", i%3), opened: from, seen: from, closed: from.Add(time.Hour), reason: "stopped", bytes: 5})
	}
	month := day.AddDate(0, 0, 1-day.Day())
	read := func(by string) (out []string) {
		f := UsageFilter{From: month, To: month.AddDate(0, 1, 0), By: by}
		if err := h.store.Usage(t.Context(), f, func(r *UsageRow) error {
			out = append(out, fmt.Sprint(r.Realm, r.User, r.Stream, r.Node, r.Sessions, r.Seconds, r.Bytes, *r.Peak))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	h.roll()
	rows, streams := read(""), read("stream")
	if want := []string{"mainnews5 18000 25 5"}; len(rows) != 5 || strings.ReplaceAll(streams[0], " ", "") != strings.ReplaceAll(want[0], " ", "") {
		t.Errorf("usage = %q by stream %q", rows, streams)
	}
	if m, err := h.store.Maintain(t.Context(), policy.DefaultRetention()); err != nil || m.Dropped < 3 { // one more where midnight has just passed
		t.Fatalf("Maintain = %+v, %v; want three partitions dropped at least", m, err)
	}
	h.exec("INSERT INTO usher.usage_peak_due VALUES ($1) ON CONFLICT DO NOTHING", day) // nothing is left to work peaks out of
	h.roll()
	if after := read(""); !slices.Equal(after, rows) {
		t.Errorf("usage after retention = %q, was %q", after, rows)
	}
	if after := read("stream"); !slices.Equal(after, streams) {
		t.Errorf("by stream after retention = %q, was %q", after, streams)
	}
	if _, err := h.store.Maintain(t.Context(), policy.Retention{Usage: 50 * 24 * time.Hour}); err != nil || len(h.usage()) != 0 {
		t.Errorf("usage older than its own retention is kept: %v, %v", h.usage(), err)
	}
}
