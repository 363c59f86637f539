package command

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"usher.internal/libs/pgstore"
)

// export groups what is written for other programs.
type export struct {
	Usage exportUsage `cmd:"" help:"Write what was played in a month, for billing and rights owners."`
}

type exportUsage struct {
	source
	Month  string `help:"The month (UTC), such as 2026-10." required:"" placeholder:"YYYY-MM"`
	Realm  string `help:"Of this realm; left out, of all but probes."`
	User   string `help:"Of this user."`
	Stream string `help:"On this stream."`
	Node   string `help:"At this node."`
	By     string `help:"What is told apart besides the realm: all (user, stream and node), user, stream, node or realm." enum:"all,user,stream,node,realm" default:"all"`
	Daily  bool   `help:"A row a day in place of one for the month."`
	Format string `help:"csv, json (an array) or jsonl (a line a row)." enum:"csv,json,jsonl" default:"csv"`
}

// Run writes a month, in a stable order, as it comes from Postgres.
func (c exportUsage) Run(ctx context.Context, app App) error {
	from, err := time.Parse("2006-01", c.Month)
	if err != nil {
		return fmt.Errorf("--month %q: write it as 2026-10", c.Month)
	}
	f := pgstore.UsageFilter{From: from, To: from.AddDate(0, 1, 0), Realm: c.Realm, User: c.User, Stream: c.Stream, Node: c.Node, Daily: c.Daily}
	if c.By != "all" {
		f.By = c.By
	}
	if f.To.After(time.Now()) {
		fmt.Fprintf(app.Err, "%s is not over: sessions that still play count from the next midnight (UTC) on, or from their end\n", c.Month)
	}
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	out := bufio.NewWriterSize(app.Out, 64<<10)
	w := newUsageWriter(c.Format, out)
	p := &progress{out: app.Err, what: "rows", next: time.Now().Add(progressEvery)}
	err = store.Usage(ctx, f, func(r *pgstore.UsageRow) error {
		p.step()
		return w.row(r)
	})
	if err != nil {
		return err
	}
	if err := w.end(); err != nil {
		return err
	}
	return out.Flush()
}

// usageWriter writes rows in one of the formats.
type usageWriter interface {
	row(r *pgstore.UsageRow) error
	end() error
}

func newUsageWriter(format string, out io.Writer) usageWriter {
	if format == "csv" {
		w := csv.NewWriter(out)
		_ = w.Write(usageColumns) // a fault of the writer stays until end
		return &usageCSV{w}
	}
	return &usageJSON{out: out, lines: format == "jsonl"}
}

var usageColumns = []string{"day", "realm", "user_id", "stream", "node", "sessions", "seconds", "bytes", "peak"}

type usageCSV struct{ w *csv.Writer }

func (u *usageCSV) row(r *pgstore.UsageRow) error {
	day, peak := "", ""
	if r.Day != nil {
		day = r.Day.Format(time.DateOnly)
	}
	if r.Peak != nil {
		peak = strconv.FormatInt(*r.Peak, 10)
	}
	return u.w.Write([]string{day, r.Realm, r.User, r.Stream, r.Node,
		strconv.FormatInt(r.Sessions, 10), strconv.FormatInt(r.Seconds, 10), strconv.FormatInt(r.Bytes, 10), peak})
}

func (u *usageCSV) end() error {
	u.w.Flush()
	return u.w.Error()
}

type usageJSON struct {
	out   io.Writer
	lines bool
	n     int
}

func (u *usageJSON) row(r *pgstore.UsageRow) error {
	line := struct {
		Day      string `json:"day,omitempty"`
		Realm    string `json:"realm"`
		User     string `json:"user_id"`
		Stream   string `json:"stream"`
		Node     string `json:"node"`
		Sessions int64  `json:"sessions"`
		Seconds  int64  `json:"seconds"`
		Bytes    int64  `json:"bytes"`
		Peak     *int64 `json:"peak"`
	}{"", r.Realm, r.User, r.Stream, r.Node, r.Sessions, r.Seconds, r.Bytes, r.Peak}
	if r.Day != nil {
		line.Day = r.Day.Format(time.DateOnly)
	}
	text, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("writing a row: %w", err)
	}
	before := ""
	switch {
	case u.lines:
	case u.n == 0:
		before = "[\n"
	default:
		before = ",\n"
	}
	if u.n++; u.lines {
		text = append(text, '\n')
	}
	_, err = fmt.Fprintf(u.out, "%s%s", before, text)
	return err
}

func (u *usageJSON) end() error {
	if u.lines {
		return nil
	}
	end := "\n]\n"
	if u.n == 0 {
		end = "[]\n"
	}
	_, err := io.WriteString(u.out, end)
	return err
}

// progressEvery is how often long work says how far it is.
const progressEvery = 2 * time.Second

// progress tells how far long work is, to whoever waits for it; short work says nothing.
type progress struct {
	out  io.Writer
	what string
	n    int
	next time.Time
}

func (p *progress) step() {
	if p.n++; p.n%1000 == 0 && time.Now().After(p.next) {
		fmt.Fprintf(p.out, "%d %s so far\n", p.n, p.what)
		p.next = time.Now().Add(progressEvery)
	}
}
