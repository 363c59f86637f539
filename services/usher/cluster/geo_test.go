package cluster_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"usher.internal/libs/testkit"
	"usher.internal/services/usher/cluster"
)

// A country database in the data directory counts in rules, and the country stands in the rows.
func TestCountriesComeFromTheDatabase(t *testing.T) {
	t.Parallel()
	dir := testkit.Dir(t)
	data := cluster.Data(filepath.Join(dir, "data"))
	if err := os.MkdirAll(data.GeoIPDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	testkit.Geo(t, filepath.Join(data.GeoIPDir(), "country.mmdb"), map[string]string{"192.0.2.0/24": "DE"})
	policy := filepath.Join(dir, "policy.yaml")
	writePolicy(t, policy, `
  - match: "abroad"
    when: 'country != "DE"'
    auth: allow
  - match: "home"
    auth: allow
    rules: [{name: abroad-only, when: 'country in ["DE", "AT"] && stream == "x"', then: deny}]
  - match: "listed"
    deny: {country: [DE]}
    auth: allow
  - match: "ruled"
    auth: allow
    rules: [{name: no-germany, when: 'country == "DE" && ip in network("192.0.2/24")', then: deny}]
`)
	c := boot(t, cluster.Options{Data: data, Policy: policy, Workers: 1})
	for stream, want := range map[string]int{"abroad": 403, "home": 200, "listed": 403, "ruled": 403} {
		if got := c.ask(t, "/hls/"+stream+"/a.ts", "player "+stream); got.status != want {
			t.Errorf("%s: status %d, reason %s; want %d", stream, got.status, got.reason, want)
		}
	}
	conn, err := pgx.Connect(t.Context(), c.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var country string
	err = conn.QueryRow(t.Context(), "SELECT country FROM usher.sessions WHERE stream = 'home'").Scan(&country)
	if err != nil || country != "DE" {
		t.Errorf("the session's country is %q, %v; want DE", country, err)
	}
}
