package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// path is one thing that is measured.
type path struct {
	// name is how -only and the results file call it.
	name string
	// what it is, in words.
	what string
	// conns is how many requests are in flight; its yardstick is the no-op under as many.
	conns int
	// floor and aim are of DESIGN.md §8, as ratios to the no-op; 0 where it promises none.
	floor, aim float64
	// start makes it ready to be measured.
	start func(ctx context.Context, l *lab) (*stage, error)
}

// stage is a path that is ready.
type stage struct {
	// before prepares a round, outside of the measured time.
	before func(ctx context.Context, round int) error
	// load runs from now until end and counts what came after start.
	load func(ctx context.Context, start, end time.Time) (tally, error)
	// after checks what the rounds left behind and may add notes to the result.
	after func(ctx context.Context, r *result) error
	// watch are the processes whose time is taken.
	watch []watched
	stop  func() error
}

// paths in the order in which they are measured.
func paths() []path {
	return []path{
		noop(64), noop(256), echo(8), echo(64), echo(256),
		ledger(64), ledger(256),
		known("known-64", "known session, segment without a token: answered from memory", "", 64),
		known("known-token-64", "known session, segment with its token", "?token=", 64),
		fresh("new-64", 64, saltLength, 0.12, 0.20), fresh("new-256", 256, saltLength, 0.18, 0.27),
		fresh("new-claim-64", 64, 0, 0, 0),
		denied(64),
		upstreamDirect(), upstream(1, 0, 8), upstream(1, narrow, 4*narrow), upstream(2, narrow, 8*narrow), upstream(4, narrow, 16*narrow),
	}
}

func names() []string {
	var out []string
	for _, p := range paths() {
		out = append(out, p.name)
	}
	return out
}

// chosen are the paths that -only names.
func chosen(only string) ([]path, error) {
	var out []path
	for _, p := range paths() {
		for prefix := range strings.SplitSeq(only, ",") {
			if strings.HasPrefix(p.name, strings.TrimSpace(prefix)) {
				out = append(out, p)
				break
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("-only %s: no such path; there are %s", only, strings.Join(names(), " "))
	}
	return out, nil
}
