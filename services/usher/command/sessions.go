package command

import (
	"context"
	"fmt"
	"time"

	"usher.internal/libs/pgstore"
)

// sessions groups what is done with sessions.
type sessions struct {
	List sessionsList `cmd:"" help:"List sessions, the newest first."`
	Show sessionsShow `cmd:"" help:"Show one session and its decisions."`
	Kill sessionsKill `cmd:"" help:"End a session now; its seat is free and it may not reopen for a while."`
}

type sessionsList struct {
	source
	list
	User   string        `help:"Of this user."`
	Realm  string        `help:"Of this realm."`
	Stream string        `help:"On this stream."`
	Node   string        `help:"At this node."`
	IP     string        `name:"ip" help:"From this address."`
	Closed bool          `help:"Closed ones too."`
	Since  time.Duration `help:"How far back closed ones are listed." default:"24h"`
}

// Run lists sessions.
func (c sessionsList) Run(ctx context.Context, app App) error {
	ip, err := parseIP(c.IP)
	if err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		rows, err := s.Sessions(ctx, pgstore.SessionFilter{
			User: c.User, Realm: c.Realm, Stream: c.Stream, Node: c.Node, IP: ip,
			Closed: c.Closed, Since: time.Now().Add(-c.Since), Limit: c.Limit,
		})
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(app, rows)
		}
		if err := printActive(ctx, app, s); err != nil {
			return err
		}
		return table(app, "no sessions", sessionHead, sessionTable(rows))
	})
}

const sessionHead = "SESSION USER STREAM NODE ADDRESS OPENED LAST-SEEN REQUESTS ENDED"

func sessionTable(rows []pgstore.SessionRow) [][]string {
	out := make([][]string, len(rows))
	for i, r := range rows {
		ended := "playing"
		if r.ClosedAt != nil {
			ended = text(r.CloseReason) + " " + clock(*r.ClosedAt)
		}
		out[i] = []string{
			r.ID.String(), account(r.Realm, r.User), r.Stream, r.Node, address(r.IP),
			clock(r.OpenedAt), ago(r.LastSeenAt), fmt.Sprint(r.Requests), ended,
		}
	}
	return out
}

// account is the user, with his realm where that is not the usual one.
func account(realm string, user *string) string {
	if user == nil || realm == "" || realm == "main" {
		return text(user)
	}
	return realm + "/" + *user
}

type sessionsShow struct {
	source
	list
	ID string `arg:"" help:"The session's id."`
}

// Run shows a session.
func (c sessionsShow) Run(ctx context.Context, app App) error {
	id, err := parseID("session", c.ID)
	if err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		row, err := s.Session(ctx, id)
		if err != nil {
			return err
		}
		if row == nil {
			return fmt.Errorf("no session %s: it may be older than the policy's retention keeps; usher sessions list --closed shows what there is", id)
		}
		decisions, err := s.Decisions(ctx, pgstore.DecisionFilter{Session: id, Since: row.OpenedAt.Add(-time.Hour), Limit: c.Limit})
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(app, struct {
				*pgstore.SessionRow
				Decisions []pgstore.DecisionRow `json:"decisions"`
			}{row, decisions})
		}
		if err := table(app, "", sessionHead, sessionTable([]pgstore.SessionRow{*row})); err != nil {
			return err
		}
		fmt.Fprintf(app.Out, "\nuser agent  %s\ndevice      %s\nedge        %s, region %s\nbytes       %d\nre-checks   %d\n\n",
			row.UserAgent, row.Device, row.Edge, row.Region, row.Bytes, row.Rechecks)
		return table(app, "its decisions are no longer kept", decisionHead, decisionTable(decisions))
	})
}

type sessionsKill struct {
	source
	ID  string        `arg:"" help:"The session's id."`
	Bar time.Duration `help:"How long the same viewer may not reopen the stream; at least one lease." default:"0s"`
}

// Run kills a session. Any recorder tells the edges within a second.
func (c sessionsKill) Run(ctx context.Context, app App) error {
	id, err := parseID("session", c.ID)
	if err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, s *pgstore.Store) error {
		ended, err := s.KillSession(ctx, id, c.Bar)
		if err != nil {
			return err
		}
		if ended == nil {
			return fmt.Errorf("session %s is not playing; usher sessions list shows those that are", id)
		}
		_, err = fmt.Fprintf(app.Out, "killed: %s on %s at %s; refused on every edge within a second\n",
			account(ended.Realm, &ended.User), ended.Stream, ended.Node)
		return err
	})
}
