package command

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
)

// list is the flag of every command that prints one.
type list struct {
	JSON  bool `help:"Print JSON." name:"json"`
	Limit int  `help:"At most so many rows." default:"100"`
}

func printJSON(app App, v any) error {
	e := json.NewEncoder(app.Out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// table prints rows under a head; none at all in words.
func table(app App, none, head string, rows [][]string) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(app.Out, none)
		return err
	}
	w := tabwriter.NewWriter(app.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, strings.ReplaceAll(head, " ", "\t"))
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// clock is a time of today, or with its day if it is another one.
func clock(t time.Time) string {
	t = t.Local()
	if y, m, d := t.Date(); func() bool { ny, nm, nd := time.Now().Date(); return y == ny && m == nm && d == nd }() {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

// ago is how long before now, for a person.
func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < 2*time.Second:
		return "just now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}

func text(s *string) string {
	if s == nil || *s == "" {
		return "-"
	}
	return *s
}

func address(ip *netip.Addr) string {
	if ip == nil {
		return "-"
	}
	return ip.String()
}

// parseID reads a UUID as it stands in tables and in X-Usher-Decision.
func parseID(what, s string) (uuid.UUID, error) {
	id, err := uuid.Parse(s)
	if err != nil {
		return id, fmt.Errorf("%q is no %s id: it looks like 0190b6f3-1f2e-7c3a-9d4e-5f6a7b8c9d0e", s, what)
	}
	return id, nil
}

// parseIP reads an address filter, "" for none.
func parseIP(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return ip, fmt.Errorf("--ip %q is no address", s)
	}
	return ip.Unmap().WithZone(""), nil
}
