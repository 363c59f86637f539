package vectors_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/decide/decidetest"
	"usher.internal/libs/pgstore"
)

const cases = "../../../../libs/decide/testdata/cases"

// answer is what came back of a question, as far as its level shows it.
type answer struct {
	outcome, reason string
	text            string // why, where the level shows it
	decision        uuid.UUID
	http            bool
	row             *pgstore.DecisionRow // nil where the edge alone refused
	check           func(t *testing.T, w *decidetest.Want)
}

// TestVectors puts every case over NATS and over HTTP. Each group of questions that follow one
// another has a chain of its own.
func TestVectors(t *testing.T) {
	t.Parallel()
	for _, f := range decidetest.Load(t, cases) {
		for _, level := range []decidetest.Level{decidetest.NATS, decidetest.HTTP} {
			t.Run(fmt.Sprint(f.Name, " over ", level), func(t *testing.T) {
				t.Parallel()
				p := newPlace(t, decidetest.Source(t, f.Policy))
				put, not := 0, 0
				for _, group := range groups(f, level, &not) {
					put += p.ask(t, f, level, group)
				}
				t.Logf("%d questions were put over %s, %d cannot be", put, level, not)
				if put == 0 && not == 0 {
					t.Error("the file holds no question")
				}
			})
		}
	}
}

// groups are the questions that can be put at the level, by who follows whom. A group stays
// one also where some of it cannot be put.
func groups(f *decidetest.File, level decidetest.Level, not *int) [][]*decidetest.Question {
	var all [][]*decidetest.Question
	for i := range f.Questions {
		q := &f.Questions[i]
		if !q.Follows || len(all) == 0 {
			all = append(all, nil)
		}
		last := &all[len(all)-1]
		if _, skips := q.Not[level]; skips {
			*not++
		}
		*last = append(*last, q)
	}
	return slices.DeleteFunc(all, func(g []*decidetest.Question) bool {
		return !slices.ContainsFunc(g, func(q *decidetest.Question) bool { _, skips := q.Not[level]; return !skips })
	})
}

// ask puts the questions of a group to a new chain, and says how many there were.
func (p *place) ask(t *testing.T, f *decidetest.File, level decidetest.Level, group []*decidetest.Question) int {
	c := p.chain(t, level, places(t, group))
	defer c.stop()
	for host, b := range f.Backends {
		c.upstream.Set(host, b)
	}
	n := 0
	for _, q := range group {
		if q.Skips(t, level) {
			c.prepare(t, q)
			continue
		}
		n++
		t.Run(q.Name, func(t *testing.T) { c.put(t, level, q) })
	}
	return n
}

// prepare brings about what the question wants to find.
func (c *chain) prepare(t *testing.T, q *decidetest.Question) {
	t.Helper()
	c.eventually("what checks said before is written", func() bool { return c.ports.settled(t.Context()) })
	for host, b := range q.Backends {
		c.upstream.Set(host, b)
	}
	c.clock.put(q)
	c.ports.claimsDown.Store(slices.Contains(q.Down, "claims"))
	c.ports.knownDown.Store(slices.Contains(q.Down, "known"))
	c.ports.grantsDown.Store(slices.Contains(q.Down, "grants"))
	if q.Revoke != "" {
		revoked := 0
		for _, check := range c.snapshot.Checks {
			n, err := c.store.RevokeGrants(t.Context(), check.Realm, q.Revoke)
			must(t, err)
			revoked += n
		}
		if revoked == 0 {
			t.Fatalf("%s has no grants to revoke", q.Revoke)
		}
	}
}

// put puts the question and holds what comes back against what is wanted.
func (c *chain) put(t *testing.T, level decidetest.Level, q *decidetest.Question) {
	c.prepare(t, q)
	before := map[string]int{}
	for _, host := range c.upstream.Hosts() {
		before[host] = c.upstream.Asked(host)
	}
	one := c.overNATS
	if level == decidetest.HTTP {
		one = c.overHTTP
	}
	answers := make([]answer, max(1, q.AtOnce))
	var asking sync.WaitGroup
	for i := range answers {
		c.asked++
		device := fmt.Sprint("case ", c.region, " ", c.asked)
		asking.Go(func() { answers[i] = one(t, q, device) })
	}
	asking.Wait()
	deadline := time.Now().Add(patience)
	for q.Until && answers[0].reason != answers[0].wanted(&q.Want) && time.Now().Before(deadline) {
		c.asked++
		answers[0] = one(t, q, fmt.Sprint("case ", c.region, " ", c.asked))
	}
	for _, a := range answers {
		c.compare(t, q, a)
	}
	c.live(t, q)
	q.Want.CheckSent(t, c.upstream, before)
	for _, host := range c.upstream.Hosts() {
		if got, want := c.upstream.Asked(host)-before[host], q.Want.Times(host); q.Want.Asked != nil && got != want {
			t.Errorf("questions to %s = %d, want %d", host, got, want)
		}
	}
}

// live counts the seats that the user holds in this chain.
func (c *chain) live(t *testing.T, q *decidetest.Question) {
	t.Helper()
	if q.Want.Live == nil {
		return
	}
	rows, err := c.store.Sessions(t.Context(), pgstore.SessionFilter{User: q.Want.User})
	must(t, err)
	n := 0
	for i := range rows {
		if rows[i].Region == c.region {
			n++
		}
	}
	if n != *q.Want.Live {
		t.Errorf("%s holds %d seats, want %d", q.Want.User, n, *q.Want.Live)
	}
}

// wanted is the reason that the case names for this level.
func (a *answer) wanted(w *decidetest.Want) string {
	if a.http && w.HTTP.Reason != "" {
		return w.HTTP.Reason
	}
	return w.Reason
}

func (c *chain) compare(t *testing.T, q *decidetest.Question, a answer) {
	t.Helper()
	w := &q.Want
	if w.Or != "" && a.reason == w.Or && a.outcome == string(access.Deny) {
		return
	}
	if reason := a.wanted(w); a.outcome != w.Outcome || a.reason != reason {
		t.Errorf("answer = %s %s, want %s %s", a.outcome, a.reason, w.Outcome, reason)
	}
	if a.check != nil {
		a.check(t, w)
	}
	row := a.row
	if row == nil {
		if a.http {
			c.refused(t, q, a)
		}
		return
	}
	own := w.Own
	if own == "" {
		own = q.Stream
	}
	if row.Outcome != w.Outcome || row.Reason != w.Reason || row.Stream != own || w.Realm != "" && row.Realm != w.Realm {
		t.Errorf("row = %s %s, stream %s, realm %s; want %s %s, stream %s, realm %s",
			row.Outcome, row.Reason, row.Stream, row.Realm, w.Outcome, w.Reason, own, w.Realm)
	}
	if would, _, _ := strings.Cut(w.Would, " "); would != "" && text(row.Would) != would {
		t.Errorf("the row's would = %q, want %q", text(row.Would), would)
	}
	if user := text(row.User); user != w.User && !keeps(q) {
		t.Errorf("the row's user = %q, want %q", user, w.User)
	}
	decidetest.HoldsNoSecrets(t, q.Request(), "", row.Steps)
	decidetest.SaysWho(t, row.Reason, a.text, row.Steps)
	if w.Steps == nil {
		return
	}
	var got []string
	for _, s := range row.Steps {
		switch s.Name {
		case "edge to worker", "limit", "seat": // around what the engine did
		default:
			got = append(got, s.Name+": "+s.Result)
		}
	}
	if !slices.Equal(got, w.Steps) {
		t.Errorf("steps = %s, want %s", strings.Join(got, ", "), strings.Join(w.Steps, ", "))
	}
}

// find waits for nothing: a row is committed before its answer.
func (c *chain) find(t *testing.T, id uuid.UUID, reason string) *pgstore.DecisionRow {
	t.Helper()
	switch access.Reason(reason) {
	case access.UnknownNode, access.WrongSource, access.BadRequest, access.NoSession:
		return nil // the edge's own word goes by its journal
	}
	row, err := c.store.Decision(t.Context(), id)
	if err == nil && row == nil && access.Reason(reason) == access.Evicted {
		return nil // refused by the edge that was told
	}
	if err != nil || row == nil {
		t.Errorf("decision %s (%s) has no row: %v", id, reason, err)
		return nil
	}
	return row
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func netipPrefix(ip netip.Addr) string { return netip.PrefixFrom(ip, ip.BitLen()).String() }
