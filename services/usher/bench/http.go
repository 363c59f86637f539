package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// most is how many questions a second are made beforehand for paths that must not repeat
// one: more than this machine will answer.
const most = 30_000

// onlyOK is for paths that know one answer.
func onlyOK(status int, _ []byte) verdict {
	if status == 200 {
		return good
	}
	return wrong
}

// orFull takes a full limit for what it is: a decision like others.
func orFull(status int, head []byte) verdict {
	switch {
	case status == 200:
		return good
	case status == 403 && bytes.Equal(header(head, "X-Usher-Reason"), []byte("limit")):
		return refused
	}
	return wrong
}

func onlyBadToken(status int, head []byte) verdict {
	if status == 403 && bytes.Equal(header(head, "X-Usher-Reason"), []byte("bad_token")) {
		return good
	}
	return wrong
}

func noop(conns int) path {
	return path{
		name: fmt.Sprintf("noop-%d", conns), what: "yardstick: net/http no-op", conns: conns,
		start: func(_ context.Context, l *lab) (*stage, error) { return l.yardStage(l.yardstick.HTTP, conns), nil },
	}
}

func echo(conns int) path {
	return path{
		name: fmt.Sprintf("echo-%d", conns), what: "yardstick: HTTP → NATS → worker that echoes → HTTP", conns: conns,
		start: func(_ context.Context, l *lab) (*stage, error) { return l.yardStage(l.yardstick.Echo, conns), nil },
	}
}

func (l *lab) yardStage(addr netip.AddrPort, conns int) *stage {
	req := (&viewer{stream: "channel-1", ip: "10.0.0.1"}).ask("index.m3u8")
	load := &httpLoad{addr: addr, conns: conns, next: func() []byte { return req }, judge: onlyOK}
	return &stage{load: load.run, watch: []watched{
		{name: "load", pid: os.Getpid()}, {name: "server", pid: l.yardstick.pid()},
	}}
}

// up starts a cluster with a policy on an emptied database.
func (l *lab) up(ctx context.Context, name, policy string, workers, pool int) (*child, error) {
	data := filepath.Join(l.dir, name)
	if err := os.MkdirAll(data, 0o711); err != nil {
		return nil, err
	}
	file := filepath.Join(data, "bench.yaml")
	if err := os.WriteFile(file, []byte(policy), 0o644); err != nil {
		return nil, err
	}
	c, err := l.spawn(ctx, "cluster", name, "-data", data, "-policy", file, "-postgres", l.postgres.DSN(),
		"-workers", fmt.Sprint(workers), "-pool", fmt.Sprint(pool))
	if err != nil {
		return nil, err
	}
	if err := l.fill(ctx); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// policy is a policy file for one nginx and one check.
func policy(check string) string {
	return `version: 1
defaults: {lease: 1h, idle: 1h}
nodes:
  web1: {caller: nginx, from: [127.0.0.1], url: "/hls/{stream}/**"}
checks:
  site: ` + check + `
streams:
  - match: "**"
    auth: site
    limit: {sessions: 3, by: user, mode: refuse}
`
}

func securetokenPolicy(salt int) string {
	return policy(fmt.Sprintf(`{type: securetoken, secret: "env:BENCH_SECRET", check_ip: false, salt_length: %d}`, salt))
}

// known asks for segments of 10,000 sessions that the edge knows.
func known(name, what, query string, conns int) path {
	const sessions = 10_000
	start := func(ctx context.Context, l *lab) (*stage, error) {
		c, err := l.up(ctx, name, securetokenPolicy(saltLength), 2, 0)
		if err != nil {
			return nil, err
		}
		s, err := newSigner(saltLength)
		var open, segments questions
		for i := 0; i < sessions && err == nil; i++ {
			v := someone(0, i)
			v.user = fmt.Sprint("known", i)
			err = s.sign(&v)
			open.all = append(open.all, v.ask("index.m3u8?token="+v.token))
			file := "720p/segment-1234.ts"
			if query != "" {
				file += query + v.token
			}
			segments.all = append(segments.all, v.ask(file))
		}
		st := &stage{watch: l.servers(c), stop: c.stop}
		if err == nil {
			err = openAll(ctx, c, &open)
		}
		if err != nil {
			return nil, errors.Join(err, c.stop())
		}
		load := &httpLoad{addr: c.HTTP, conns: conns, next: segments.take, judge: onlyOK}
		st.load = load.run
		st.before = func(ctx context.Context, _ int) error { return l.checkpoint(ctx) }
		st.after = func(ctx context.Context, _ *result) error { return l.rows(ctx, sessions) }
		return st, nil
	}
	return path{name: name, what: what, conns: conns, floor: 0.8, start: start}
}

// openAll asks each question once.
func openAll(ctx context.Context, c *child, q *questions) error {
	load := &httpLoad{addr: c.HTTP, conns: 16, next: q.take, judge: onlyOK, most: len(q.all)}
	now := time.Now()
	t, err := load.run(ctx, now, now.Add(time.Minute))
	if err == nil && (t.done != len(q.all) || t.wrong > 0) {
		err = fmt.Errorf("%d of %d sessions opened, %d wrong answers: %s", t.done, len(q.all), t.wrong, t.first)
	}
	return err
}

// fresh asks for new sessions of random users: token, limit and audit row each time.
func fresh(name string, conns, salt int, floor, aim float64) path {
	what := "new session: token, limit 3, audit row committed before the answer"
	if salt == 0 {
		what = "the same, where each token's salt and user are claimed in SQL (no salt_length)"
	}
	start := func(ctx context.Context, l *lab) (*stage, error) {
		s, err := newSigner(salt)
		if err != nil {
			return nil, err
		}
		return l.asking(ctx, name, conns, securetokenPolicy(salt), 2, 0, orFull, func(round, n int) ([]byte, error) {
			v := someone(round, n)
			err := s.sign(&v)
			return v.ask("index.m3u8?token=" + v.token), err
		})
	}
	return path{name: name, what: what, conns: conns, floor: floor, aim: aim, start: start}
}

// denied asks with tokens that were signed with another secret.
func denied(conns int) path {
	name := fmt.Sprintf("denied-%d", conns)
	start := func(ctx context.Context, l *lab) (*stage, error) {
		forged := viewer{token: "0123456789abcdef0123456789abcdef01234567-0123456789abcdef"}
		end := time.Now().Add(time.Hour).Unix()
		return l.asking(ctx, name, conns, securetokenPolicy(saltLength), 2, 0, onlyBadToken, func(round, n int) ([]byte, error) {
			v := someone(round, n)
			return v.ask(fmt.Sprintf("index.m3u8?token=%s-%d-%d-%s", forged.token, end, end-7200, v.user)), nil
		})
	}
	return path{name: name, what: "denial: a forged token each, audit row committed before the answer", conns: conns, start: start}
}

// asking is a stage whose every question is new, and which must leave a row for every answer.
func (l *lab) asking(ctx context.Context, name string, conns int, policy string, workers, pool int,
	judge func(int, []byte) verdict, ask func(round, n int) ([]byte, error)) (*stage, error) {
	c, err := l.up(ctx, name, policy, workers, pool)
	if err != nil {
		return nil, err
	}
	var q *questions
	asked := 0
	load := &httpLoad{addr: c.HTTP, conns: conns, next: func() []byte { return q.take() }, judge: judge}
	return &stage{
		watch: l.servers(c), stop: c.stop,
		before: func(ctx context.Context, round int) error {
			q = &questions{}
			for n := range int((l.duration + warm).Seconds() * most) {
				one, err := ask(round, n)
				if err != nil {
					return err
				}
				q.all = append(q.all, one)
			}
			return l.checkpoint(ctx)
		},
		load: func(ctx context.Context, start, end time.Time) (tally, error) {
			t, err := load.run(ctx, start, end)
			asked += int(q.next.Load())
			if over := int(q.next.Load()) - len(q.all); over > 0 && err == nil {
				err = fmt.Errorf("%d questions were asked twice: make more than %d a second beforehand", over, most)
			}
			return t, err
		},
		after: func(ctx context.Context, r *result) (err error) {
			r.Reasons, err = l.reasons(ctx)
			return errors.Join(err, l.rows(ctx, asked), l.strict(ctx))
		},
	}, nil
}

func (l *lab) checkpoint(ctx context.Context) error {
	_, err := l.sql(ctx, "CHECKPOINT")
	return err
}

// rows holds the answers against the audit rows: one each.
func (l *lab) rows(ctx context.Context, want int) error {
	got, err := l.sql(ctx, "SELECT count(*) FROM usher.decision")
	if err == nil && got != fmt.Sprint(want) {
		err = fmt.Errorf("%s audit rows for %d questions", got, want)
	}
	return err
}

// reasons counts the rows by what they say, so that answers which no worker gave don't hide,
// and tells how many were committed together.
func (l *lab) reasons(ctx context.Context) (string, error) {
	return l.sql(ctx, `
		SELECT string_agg(n || ' ' || what, ', ' ORDER BY n DESC) || '; ' ||
		       (SELECT round(count(*)::numeric / count(DISTINCT xmin::text), 1) FROM usher.decision) || ' a commit'
		  FROM (SELECT count(*) AS n, reason || CASE WHEN by_edge THEN ' by the edge' ELSE '' END AS what
		          FROM usher.decision GROUP BY 2) r`)
}

// strict holds the seats against the limit.
func (l *lab) strict(ctx context.Context) error {
	got, err := l.sql(ctx, `SELECT COALESCE(max(n), 0) FROM (
		SELECT count(*) AS n FROM usher.seat WHERE expires_at > clock_timestamp() GROUP BY subject) s`)
	if err == nil && got > "3" {
		err = fmt.Errorf("a user holds %s seats, limit 3", got)
	}
	return err
}
