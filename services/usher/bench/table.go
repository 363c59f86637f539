package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
)

// table shows results as they come.
type table struct {
	out  io.Writer
	last *report
}

func newTable(out io.Writer, last *report) *table { return &table{out, last} }

func (t *table) printf(format string, args ...any) { fmt.Fprintf(t.out, format, args...) }

const columns = "%-16s %9s %8s %8s %7s %9s %7s %7s  %-22s %5s %6s %-9s %s\n"

func (t *table) head(l *lab) {
	t.printf("%d CPUs, everything on them, load included. Medians of %d rounds of %s; one write with fsync takes %s here.\n",
		runtime.NumCPU(), l.options.rounds, l.duration, l.syncTime())
	t.printf("ratio: to the net/http no-op under as many connections, before and after each round.\n")
	t.printf("cpu: the same by processor time of one answer; it holds also on a busy machine.\n\n")
	t.printf(columns, "path", "per s", "p50 ms", "p99 ms", "ratio", "spread", "before", "cpu", "µs/answer load+srv+pg", "idle", "others", "", "what")
}

func (t *table) line(p path, r *result) {
	before := "-"
	if old := t.last.Paths[p.name]; old != nil && old.Ratio > 0 {
		before = fmt.Sprintf("%.3f", old.Ratio)
	}
	spread := "-"
	if len(r.Ratios) > 0 {
		spread = fmt.Sprintf("±%.0f%%", 50*(slices.Max(r.Ratios)-slices.Min(r.Ratios))/max(r.Ratio, 1e-9))
	}
	t.printf(columns, p.name, fmt.Sprintf("%.0f", r.Rate), fmt.Sprintf("%.2f", r.P50), fmt.Sprintf("%.2f", r.P99),
		fmt.Sprintf("%.3f", r.Ratio), spread, before, fmt.Sprintf("%.3f", r.CPURatio), shares(r),
		fmt.Sprintf("%.0f%%", 100*r.Idle), fmt.Sprintf("%.0f%%", 100*r.Others), mark(p, r), p.what)
	if r.Reasons != "" {
		t.printf("%-16s rows: %s\n", "", r.Reasons)
	}
	if r.Wrong > 0 {
		t.printf("%-16s ERRORS: %d wrong answers, the first: %s\n", "", r.Wrong, r.First)
	}
}

func shares(r *result) string {
	var parts []string
	for _, name := range []string{"load", "server", "postgres"} {
		if us, ok := r.CPU[name]; ok {
			parts = append(parts, fmt.Sprintf("%.1f", us))
		}
	}
	return strings.Join(parts, " + ")
}

// mark says how a path stands to what is promised.
func mark(p path, r *result) string {
	switch {
	case p.floor == 0:
		return ""
	case r.Ratio < p.floor:
		return "BELOW!"
	case r.Ratio < p.aim:
		return "ok, <aim"
	}
	return "ok"
}

// foot says what follows from several lines, and loudly what is below its target.
func (t *table) foot(all *report) {
	t.printf("\n")
	at := func(name string) *result { return all.Paths[name] }
	if direct, via, echo := at("backend-8"), at("upstream-8"), at("echo-8"); direct != nil && via != nil && echo != nil {
		added := via.P50 - direct.P50
		t.printf("%-9s a worker adds %.2f ms at p50 to the backend's own %.2f ms, the commit included (target: under 1 ms); the way over NATS %.2f ms\n",
			verdictOf(added-echo.P50 < 1), added-echo.P50, direct.P50, echo.P50)
	}
	one := at(fmt.Sprintf("upstream-1x%d", narrow))
	for _, n := range []int{2, 4} {
		if many := at(fmt.Sprintf("upstream-%dx%d", n, narrow)); one != nil && many != nil {
			t.printf("%-9s %d workers do %.2f times what one does (target: linear, %.1f allowed)\n",
				verdictOf(many.Rate >= 0.9*float64(n)*one.Rate), n, many.Rate/one.Rate, 0.9*float64(n))
		}
	}
	below := 0
	for _, p := range paths() {
		if r := at(p.name); r != nil && p.floor > 0 {
			target := fmt.Sprintf("%.2f", p.floor)
			if p.aim > 0 {
				target += fmt.Sprintf(", aim %.2f", p.aim)
			}
			t.printf("%-9s %s: %.3f of the no-op (target %s)\n", verdictOf(r.Ratio >= p.floor), p.name, r.Ratio, target)
			if r.Ratio < p.floor {
				below++
			}
		}
	}
	if below > 0 {
		t.printf("\n!!! %d paths are BELOW their target\n", below)
	}
}

func verdictOf(ok bool) string {
	if ok {
		return "ok"
	}
	return "BELOW!"
}
