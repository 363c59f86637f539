package decide

import (
	"context"
	"errors"

	"usher.internal/libs/access"
	"usher.internal/libs/subscriber"
)

// accounts is a check of type users, ready to be asked.
type accounts struct {
	*subscriber.Options
	realm     string
	places    []subscriber.Place // of login and password, nil if they are not allowed
	passwords *subscriber.Passwords
}

func openAccounts(options any, realm string, d *Deps) (*accounts, error) {
	a := &accounts{Options: options.(*subscriber.Options), realm: realm}
	if !a.AllowPassword {
		return a, nil
	}
	if d.Passwords == nil {
		d.Passwords = subscriber.NewPasswords(d.Keyer) // the other checks of the engine share it
	}
	a.passwords = d.Passwords
	var err error
	a.places, err = a.Places()
	return a, err
}

// errNotGood is a login with a password that is not his, whether or not there is such a login.
var errNotGood = errors.New("login or password is wrong")

// account looks for the viewer among the operator's own subscribers, and says whether
// this one may watch the stream.
func (j *judgement) account(ctx context.Context, c *check) said {
	found, presented, err := j.subscriber(ctx, c.accounts, j.req)
	switch {
	case errors.Is(err, errNotGood), errors.Is(err, subscriber.ErrAmbiguous):
		return said{result: no, reason: access.BadToken, text: err.Error()}
	case errors.Is(err, subscriber.ErrBusy):
		return said{result: unavailable, text: err.Error()}
	case err != nil:
		return said{result: unavailable, text: "the subscribers' store could not be asked"}
	case !presented:
		return said{result: skipped}
	case found.Account == nil:
		return said{result: notMine, text: "no subscriber of realm " + c.accounts.realm + " has this token"}
	}
	return j.welcomed(ctx, c, found)
}

// subscriber finds who the request says that he is. presented is false if it says nothing.
func (e *Engine) subscriber(ctx context.Context, a *accounts, req *access.Request) (found Found, presented bool, err error) {
	if a.AllowPassword {
		login, password, ok := subscriber.SplitLogin(req.Token)
		if !ok {
			login, password, ok, err = subscriber.FindLogin(a.places, req.Query, req.Path)
		}
		if ok || err != nil {
			if err == nil {
				found, err = e.signIn(ctx, a, login, password)
			}
			return found, true, err
		}
	}
	if req.Token == "" {
		return Found{}, false, nil
	}
	found, err = e.deps.Subscribers.ByToken(ctx, a.realm, e.deps.Keyer.Fingerprint(req.Token))
	return found, true, err
}

// signIn finds a subscriber by login and password. It takes as long for a login that
// does not exist.
func (e *Engine) signIn(ctx context.Context, a *accounts, login, password string) (Found, error) {
	found, err := e.deps.Subscribers.ByLogin(ctx, a.realm, login)
	if err != nil {
		return Found{}, err
	}
	hash := ""
	if found.Account != nil {
		hash = found.Password
	}
	good, err := a.passwords.Check(ctx, a.realm, login, hash, password)
	if err != nil {
		return Found{}, err
	}
	if !good {
		return Found{}, errNotGood
	}
	return found, nil
}

// welcomed says whether a subscriber who was found may watch the stream now.
func (j *judgement) welcomed(ctx context.Context, c *check, found Found) said {
	if d := found.Refused(j.req.IP, j.deps.Now()); d != nil {
		return said{result: no, reason: d.Reason, text: d.Text}
	}
	s := said{
		result: yes, user: found.User, name: found.Name, sessions: found.Sessions, expires: found.Expires,
	}
	if !c.accounts.IgnorePackages {
		packages, err := j.deps.Subscribers.Packages(ctx, c.accounts.realm)
		if err != nil {
			return said{result: unavailable, text: "the packages could not be asked for"}
		}
		p := packages.Has(found.Account, j.req.Stream)
		if p == nil {
			return said{result: no, reason: access.NoPackage, text: "no package of subscriber " + found.User + " holds this stream"}
		}
		s.text = "package " + p.Name
	}
	return j.remembered(c, found, s)
}

// remembered holds a yes from memory against the fail mode, where the store is away: whom it
// knew is known, and for as long as grace says.
func (j *judgement) remembered(c *check, found Found, s said) said {
	if found.Away == 0 {
		return s
	}
	mode := c.OnUnavailable
	if mode == "" {
		mode = j.rule.OnUnavailable
	}
	if mode == access.FailDeny || mode == access.FailGrace && found.Away > j.rule.GraceKnown {
		return said{result: unavailable, text: "the subscribers' store could not be asked"}
	}
	s.text = join(s.text, "from memory, since the subscribers' store is away")
	return s
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
