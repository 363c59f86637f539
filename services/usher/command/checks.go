package command

import (
	"context"
	"fmt"
	"strconv"

	"usher.internal/libs/pgstore"
)

// checks groups what is asked about verifiers and middlewares.
type checks struct {
	Status checksStatus `cmd:"" help:"Show how each check does, as each worker sees it."`
}

type checksStatus struct {
	source
	list
}

// Run shows the checks.
func (c checksStatus) Run(ctx context.Context, app App) error {
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		rows, err := s.Checks(ctx, c.Limit)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(app, rows)
		}
		if err := printActive(ctx, app, s); err != nil {
			return err
		}
		return table(app, "no worker has told of any check", checkHead, checkTable(rows))
	})
}

const checkHead = "CHECK TYPE WORKER STATE SINCE LAST-ANSWER ASKED YES NO UNAVAILABLE P50 P99 LAST-ERROR"

func checkTable(rows []pgstore.CheckStatus) [][]string {
	out := make([][]string, len(rows))
	for i, r := range rows {
		state, last := r.State, "never"
		if r.Stale {
			state += ", stale: the worker is silent since " + clock(r.UpdatedAt)
		}
		if r.LastOK != nil {
			last = ago(*r.LastOK)
		}
		out[i] = []string{
			r.Check, r.Type, r.Worker, state, clock(r.Since), last,
			strconv.FormatInt(r.Asked, 10), strconv.FormatInt(r.Yes, 10), strconv.FormatInt(r.No, 10), strconv.FormatInt(r.Unavailable, 10),
			millis(r.P50), millis(r.P99), text(&r.LastError),
		}
	}
	return out
}

func millis(ms float64) string { return fmt.Sprintf("%.1fms", ms) }
