package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const nightPolicy = `version: 1
nodes:
  web1: {caller: nginx, from: [127.0.0.1]}
checks:
  portal: {type: http, url: "http://a.example/"}
streams:
  - {match: "PATTERN", auth: portal}
`

// policy writes the night's policy for streams of a pattern.
func (d *nightDesk) policy(pattern string) string {
	d.t.Helper()
	file := filepath.Join(d.t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(nightOf(pattern)), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return file
}

func TestABanOfEverybodyIsAskedTwice(t *testing.T) {
	t.Parallel()
	d := newNightDesk(t)
	for _, everybody := range [][]string{
		{"--ip", "0.0.0.0/0"}, {"--ip", "::/0"}, {"--ip", "64.0.0.0/4"}, {"--stream", "**"}, {"--stream", "*", "--ip", "0.0.0.0/1"},
	} {
		d.run(1, "it would keep everybody out", append([]string{"bans", "add", "--reason", "slip"}, everybody...)...)
	}
	d.run(1, "it would keep everybody out", "override", "deny", "--ip", "0.0.0.0/0", "--for", "1h", "--reason", "slip")
	d.run(0, "none is in force", "bans", "list")
	d.run(0, "in force", "bans", "add", "--ip", "0.0.0.0/0", "--reason", "closed", "--hits", "1")
	d.run(0, "in force", "bans", "add", "--ip", "10.0.0.0/8", "--reason", "attack")
	d.run(0, "in force", "bans", "add", "--ip", "0.0.0.0/0", "--stream", "news", "--reason", "leaked")
}

func TestAUserWithASlashIsOfOneRealm(t *testing.T) {
	t.Parallel()
	d := newNightDesk(t)
	d.run(1, "user 17 of realm tv or a user of realm main", "bans", "add", "--user", "tv/17", "--reason", "resells")
	d.run(0, "user main/tv/17", "bans", "add", "--user", "tv/17", "--realm", "main", "--reason", "resells")
	d.run(0, "user tv/17", "bans", "add", "--user", "17", "--realm", "tv", "--reason", "resells")
}

func TestAnOverrideOfNothingIsRefused(t *testing.T) {
	t.Parallel()
	d := newNightDesk(t)
	d.run(0, "in force", "policy", "apply", d.policy("**"))
	d.run(1, "no check portl; did you mean portal?", "override", "allow", "--check", "portl", "--for", "1h", "--reason", "portal")
	d.run(1, "no node astra9; it has web1", "bans", "add", "--node", "astra9", "--reason", "moved")
	d.run(0, "in force", "override", "allow", "--check", "portal", "--for", "1h", "--reason", "portal")
}

func TestATrialIsToldAndRolledBackFrom(t *testing.T) {
	t.Parallel()
	d := newNightDesk(t)
	d.run(0, "revision 1 is in force", "policy", "apply", d.policy("one"))
	d.run(0, "goes back to revision 1", "policy", "apply", d.policy("two"), "--confirm", "10m")
	three := d.policy("three")
	d.run(0, "goes back to revision 1", "policy", "apply", three, "--confirm", "10m")
	d.run(0, "usher policy confirm 3 keeps it", "policy", "apply", three)
	d.run(0, "the policy of revision 1", "policy", "rollback", "-m", "no good")
}

func nightOf(pattern string) string { return strings.Replace(nightPolicy, "PATTERN", pattern, 1) }
