package command

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"usher.internal/libs/pgstore"
)

func TestUsersExportAndForget(t *testing.T) {
	t.Parallel()
	n := newNightDesk(t)
	d := desk{t: t, dsn: n.dsn}
	n.plays("main", "annabel")
	n.plays("tv", "annabel")
	d.run(0, "", "users", "add", "annabel", "--name", "Annabel Lee")
	d.run(0, "", "users", "block", "annabel", "--realm", "main", "--reason", "shared")
	n.plays("main", "annabel")

	out, _ := d.run(0, "", "users", "export", "annabel")
	var doc struct {
		User       string           `json:"user_id"`
		Subscriber []map[string]any `json:"subscriber"`
		Decisions  []map[string]any `json:"decision"`
		Sessions   []map[string]any `json:"session_history"`
		Directives []map[string]any `json:"directive"`
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatalf("the export is no JSON: %v\n%s", err, out)
	}
	if doc.User != "annabel" || len(doc.Subscriber) != 1 || len(doc.Decisions) != 2 || len(doc.Sessions) != 2 || len(doc.Directives) != 1 {
		t.Errorf("export = %+v", doc)
	}

	d.refuses("plays now", "users", "forget", "annabel")
	out, errs := d.run(0, "", "users", "forget", "annabel", "--force")
	if !strings.Contains(out, "session_history") || !strings.Contains(out, "forgotten; the audit names him ") || !strings.Contains(errs, "ended 1 sessions") {
		t.Errorf("forget says\n%s%s", out, errs)
	}
	if left, errs := d.run(0, "", "users", "export", "annabel"); strings.Contains(left, "session_history") || !strings.Contains(errs, "nothing is known") {
		t.Errorf("after forgetting the export says\n%s%s", left, errs)
	}
	if out, _ := d.run(0, "", "users", "export", "annabel", "--realm", "tv"); !strings.Contains(out, "session_history") {
		t.Errorf("the other annabel is gone too:\n%s", out)
	}
	if all, err := n.store.Directives(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("directives = %v, %v; want none in force", all, err)
	}
}

func TestExportUsage(t *testing.T) {
	t.Parallel()
	n := newNightDesk(t)
	d := desk{t: t, dsn: n.dsn}
	for _, user := range []string{"zoe", "anna", `a "quoted", one`} {
		n.plays("main", user)
	}
	n.plays("probes", "monitor")
	rows, _ := n.store.Sessions(t.Context(), pgstore.SessionFilter{})
	for _, r := range rows {
		if _, err := n.store.KillSession(t.Context(), r.ID, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, count := range []func(context.Context) (int, error){n.store.RollUsage, n.store.RollPeaks} {
		if _, err := count(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	month := rows[0].OpenedAt.UTC().Format("2006-01")
	out, errs := d.run(0, "", "export", "usage", "--month", month)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 4 || lines[0] != "day,realm,user_id,stream,node,sessions,seconds,bytes,peak" || lines[1] != `,main,"a ""quoted"", one",news,web1,1,0,0,1` ||
		!strings.HasPrefix(lines[3], ",main,zoe,") || !strings.Contains(errs, "is not over") {
		t.Errorf("export says\n%s%s", out, errs)
	}
	for _, c := range []struct {
		want int
		args []string
	}{{1, []string{"--by", "stream"}}, {1, []string{"--realm", "probes"}}, {1, []string{"--user", "anna", "--daily"}}, {0, []string{"--stream", "none"}}, {3, []string{"--by", "user"}}} {
		for _, format := range []string{"csv", "json", "jsonl"} {
			out, _ := d.run(0, "", append([]string{"export", "usage", "--month", month, "--format", format}, c.args...)...)
			var list []map[string]any
			switch format {
			case "csv":
				list = make([]map[string]any, strings.Count(out, "\n")-1)
			case "json":
				if err := json.Unmarshal([]byte(out), &list); err != nil {
					t.Errorf("%v: %v\n%s", c.args, err, out)
				}
			case "jsonl":
				list = make([]map[string]any, strings.Count(out, "\n"))
			}
			if len(list) != c.want {
				t.Errorf("%s of %v has %d rows, want %d:\n%s", format, c.args, len(list), c.want, out)
			}
		}
	}
	if out, _ := d.run(0, "", "export", "usage", "--month", month, "--by", "stream", "--format", "jsonl"); !strings.Contains(out, `"sessions":3,"seconds":0,"bytes":0,"peak":3`) {
		t.Errorf("the stream's peak is no sum and no maximum of its viewers': %s", out)
	}
	if out, _ := d.run(0, "", "export", "usage", "--month", month, "--by", "user", "--stream", "news", "--format", "jsonl"); !strings.Contains(out, `"peak":null`) {
		t.Errorf("a peak that is not known is told: %s", out)
	}
	d.refuses("2026-10", "export", "usage", "--month", "October")
}
