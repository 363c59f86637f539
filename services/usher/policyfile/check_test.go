package policyfile

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/config"
	"usher.internal/libs/pgstore"
)

const listed = `version: 1
nodes:
  n1: {caller: astra, from: [127.0.0.1]}
streams:
  - match: "**"
    allow: {token: [letmein]}
    auth: deny
`

// memory is a Store that keeps what it is given.
type memory struct{ rows []pgstore.PolicyRow }

func (m *memory) ApplyPolicy(_ context.Context, source, author, comment string) (int64, error) {
	m.rows = append(m.rows, pgstore.PolicyRow{Revision: int64(len(m.rows) + 1), Source: source, Author: author, Comment: comment})
	return int64(len(m.rows)), nil
}

func (m *memory) CurrentPolicy(context.Context) (*pgstore.PolicyRow, error) {
	if len(m.rows) == 0 {
		return nil, nil
	}
	return &m.rows[len(m.rows)-1], nil
}

func (m *memory) TryPolicy(context.Context, string, string, string, time.Duration) (pgstore.Trial, error) {
	return pgstore.Trial{}, pgstore.ErrNothingBefore
}

func (m *memory) FailedTrial(context.Context, string) (int64, error) { return 0, nil }

func (m *memory) SeenPolicy(context.Context, string, string) (bool, error) { return false, nil }

func keyer(t *testing.T) *access.Keyer {
	t.Helper()
	k, err := access.NewKeyer(make([]byte, access.ClusterKeySize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestApply(t *testing.T) {
	t.Parallel()
	t.Run("listed tokens are stored as fingerprints, once", func(t *testing.T) {
		t.Parallel()
		var store memory
		for i, want := range []bool{true, false} {
			p, err := Check(t.Context(), "p.yaml", []byte(listed), keyer(t))
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if revision, changed, err := Apply(t.Context(), &store, p, "me", ""); err != nil || changed != want || revision != 1 {
				t.Fatalf("Apply %d = %d, %t, %v, want revision 1, changed %t", i, revision, changed, err, want)
			}
		}
		if got := store.rows[0].Source; strings.Contains(got, "letmein") || !strings.Contains(got, "fp:") {
			t.Errorf("stored source = %q", got)
		}
	})
	t.Run("listed tokens are not stored without the cluster's key", func(t *testing.T) {
		t.Parallel()
		p, err := Check(t.Context(), "p.yaml", []byte(listed), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if _, _, err := Apply(t.Context(), &memory{}, p, "me", ""); !errors.Is(err, ErrNoKey) {
			t.Errorf("Apply without a key = %v, want ErrNoKey", err)
		}
	})
	t.Run("a policy without token lists needs no key", func(t *testing.T) {
		t.Parallel()
		var store memory
		text := strings.Replace(listed, "    allow: {token: [letmein]}\n", "", 1)
		p, err := Check(t.Context(), "p.yaml", []byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if _, _, err := Apply(t.Context(), &store, p, "me", ""); err != nil || store.rows[0].Source != text {
			t.Errorf("Apply = %v, stored %+v", err, store.rows)
		}
	})
}

func TestCheck(t *testing.T) {
	t.Parallel()
	var problems config.Problems
	if _, err := Check(t.Context(), "p.yaml", []byte(strings.Replace(listed, "auth:", "aut:", 1)), nil); !errors.As(err, &problems) || !strings.Contains(problems[0].String(), "p.yaml:7:5") {
		t.Errorf("Check of a typo = %v", err)
	}
	missing := strings.Replace(listed, "streams:", "checks:\n  s: {type: securetoken, secret: \"file:/nowhere/at/all\"}\nstreams:", 1)
	p, err := Check(t.Context(), "p.yaml", []byte(missing), nil)
	if !errors.Is(err, ErrSecrets) || p == nil || p.Engine != nil {
		t.Errorf("Check with a secret that is not there = %+v, %v, want ErrSecrets", p, err)
	}
}
