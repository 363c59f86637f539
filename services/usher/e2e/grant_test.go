package e2e_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"usher.internal/libs/testkit"
	"usher.internal/libs/testkit/portal"
)

const grantRules = `  portal: {type: ministra, url: "%s/stalker_portal", on_unavailable: deny}
streams:
  - {match: "**", auth: portal}
`

// A worker is killed between the portal's yes and its own answer. The portal would refuse the
// token by the time that Astra repeats the question; the next worker finds the grant (spec
// astra §10, vector 43).
func TestAWorkerDiesAfterThePortalSaidYes(t *testing.T) {
	t.Parallel()
	m := portal.NewMinistra(t)
	f := assemble(t, testkit.NATS(t).ClientURL(), testkit.DSN(t), fmt.Sprintf(grantRules, m.URL))
	f.recorder(t, "r1")
	_, edge := f.edge(t, "e1")
	first := f.workers(t, 1)[0]

	// The ledger waits behind this lock, so that the answer cannot have gone out.
	tx, err := f.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE usher.decision IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	token := m.Link("1234")
	refused := make(chan int, 1)
	go func() { refused <- askAstra(t, edge, "1001", token) }()
	eventually(t, 10*time.Second, "the grant is stored", func() bool {
		var n int
		err := f.pool.QueryRow(t.Context(), "SELECT count(*) FROM usher.middleware_grant WHERE user_id = '1234'").Scan(&n)
		return err == nil && n == 1
	})
	first.kill()
	if status := <-refused; status != http.StatusForbidden {
		t.Errorf("the question whose worker died was answered %d, want 403", status)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Advance(6 * time.Second)
	second := f.worker(t, "w2")
	second.said(t, "worker takes questions")
	eventually(t, 10*time.Second, "the repeated question is answered by the grant", func() bool {
		return askAstra(t, edge, "1001", token) == http.StatusOK
	})
	if n := len(m.Asked()); n != 1 {
		t.Errorf("the portal was asked %d times, want once", n)
	}
}

func askAstra(t *testing.T, edge, session, token string) int {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, edge+"/v1/astra/astra1/check?token="+token, nil)
	if err != nil {
		t.Error(err)
		return 0
	}
	for name, value := range map[string]string{
		"X-Session-ID": session, "X-Channel-ID": "news", "X-Real-IP": "203.0.113.9", "X-Real-Path": "/play/news/index.m3u8",
	} {
		r.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Error(err)
		return 0
	}
	_ = res.Body.Close() // nothing was read
	return res.StatusCode
}
