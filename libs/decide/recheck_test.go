package decide

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/middleware"
	"usher.internal/libs/policy"
)

// oneGrant is Grants with room for one.
type oneGrant struct {
	nothing
	kept *Grant
}

func (o oneGrant) Find(context.Context, For, bool) ([]Grant, error) {
	if o.kept.Check == "" {
		return nil, nil
	}
	return []Grant{*o.kept}, nil
}

func (o oneGrant) Keep(_ context.Context, g Grant) error {
	*o.kept = g
	return nil
}

// A middleware that wants to be asked again (IPTVportal): yes renews, silence changes nothing,
// a no ends the grant after its grace (spec astra §10, vector 25).
func TestRecheck(t *testing.T) {
	t.Parallel()
	now := time.Unix(1700000100, 0)
	answer, err := middleware.Answer{}, error(nil)
	asked := 0
	asker := askerFunc(func(context.Context, *access.Request) (middleware.Answer, error) {
		asked++
		return answer, err
	})
	grants := oneGrant{kept: new(Grant)}
	e := engineOf(t, Deps{Now: func() time.Time { return now }, Grants: grants}, policy.AuthAny, access.FailDeny, asker)
	yes := middleware.Answer{Allowed: true, User: "u", Grant: 3 * time.Hour, Recheck: time.Hour}
	no := middleware.Answer{Text: "no", Grace: time.Hour}
	for _, step := range []struct {
		name  string
		after time.Duration
		say   middleware.Answer
		err   error
		asked int
		want  access.Outcome
	}{
		{"the first time", 0, yes, nil, 1, access.Allow},
		{"it is not due", 59 * time.Minute, no, nil, 0, access.Allow},
		{"a yes renews", time.Minute, yes, nil, 1, access.Allow},
		{"it is not due again", time.Minute, no, nil, 0, access.Allow},
		{"silence changes nothing", time.Hour, middleware.Answer{}, middleware.ErrUnavailable, 1, access.Allow},
		{"a no has its grace", time.Minute, no, nil, 1, access.Allow},
		{"within it a no is a no", 30 * time.Minute, no, nil, 1, access.Allow},
		{"then it ends", 30 * time.Minute, no, nil, 1, access.Deny},
		{"for good", time.Minute, middleware.Answer{}, middleware.ErrUnavailable, 1, access.Deny},
		{"until a yes", time.Minute, yes, nil, 1, access.Allow},
		{"a no without grace ends it at once", time.Hour, middleware.Answer{Text: "no"}, nil, 1, access.Deny},
	} {
		now = now.Add(step.after)
		answer, err, asked = step.say, step.err, 0
		req := asking("t")
		req.Session = uuid.New()
		v := e.Decide(t.Context(), req)
		if v.Outcome != step.want || asked != step.asked {
			t.Errorf("%s: %s (%s) after %d questions, want %s after %d", step.name, v.Outcome, v.Text, asked, step.want, step.asked)
		}
		if v.Outcome == access.Allow && v.User != "u" {
			t.Errorf("%s: user %q, want u", step.name, v.User)
		}
	}
}

// A token that is worth nothing once it has run out (Smarty) is not asked about again for the
// session that it opened; a new session is.
func TestAGrantForTheWholeSession(t *testing.T) {
	t.Parallel()
	now := time.Unix(1700000100, 0)
	answer, asked := middleware.Answer{Allowed: true, User: "u", Grant: time.Hour, WholeSession: true}, 0
	asker := askerFunc(func(context.Context, *access.Request) (middleware.Answer, error) {
		asked++
		return answer, nil
	})
	grants := oneGrant{kept: new(Grant)}
	e := engineOf(t, Deps{Now: func() time.Time { return now }, Grants: grants}, policy.AuthAny, access.FailDeny, asker)
	if v := e.Decide(t.Context(), asking("t")); v.Outcome != access.Allow || asked != 1 {
		t.Fatalf("Decide = %+v after %d questions, want an allow after one", v, asked)
	}
	answer, now = middleware.Answer{Text: "expired"}, now.Add(2*time.Hour)
	running := asking("t")
	running.Session = uuid.New()
	if v := e.Decide(t.Context(), running); v.Outcome != access.Allow || v.User != "u" || v.Lease != time.Minute || asked != 1 {
		t.Errorf("Decide = %+v after %d questions, want the running session to go on unasked", v, asked)
	}
	if v := e.Decide(t.Context(), asking("t")); v.Outcome != access.Deny || asked != 2 {
		t.Errorf("Decide = %+v after %d questions, want a new one asked about and refused", v, asked)
	}
}

func TestLifetime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		named, kind, most, policy, want time.Duration
	}{
		{},
		{named: 60, want: 60},
		{policy: 180, want: 180},
		{named: 60, policy: 180, want: 60},
		{kind: 3600, want: 3600},
		{named: 7200, kind: 3600, want: 3600},
		{policy: 30, kind: 3600, want: 30},
		{named: 36000, most: 3600, want: 3600},
		{most: 3600},
	} {
		own := &check{Check: &policy.Check{Grant: c.policy, GrantMax: c.most}}
		if got := own.lifetime(&middleware.Answer{Duration: c.named, Grant: c.kind}); got != c.want {
			t.Errorf("lifetime of %+v = %d", c, got)
		}
	}
}
