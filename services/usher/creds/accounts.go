package creds

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	names "usher.internal/schemas/nats"
)

// keys are all that sign.
type keys struct {
	operator, core, system nkeys.KeyPair
	roles                  map[Role]nkeys.KeyPair // scoped, of the role's account
}

// load reads the keys; make makes those that are missing.
func (d Dir) load(fresh bool) (*keys, error) {
	k := &keys{roles: map[Role]nkeys.KeyPair{}}
	var err error
	read := func(name string, create func() (nkeys.KeyPair, error)) (pair nkeys.KeyPair) {
		if err == nil {
			pair, err = d.key(name, create, fresh)
		}
		return pair
	}
	k.operator = read("operator", nkeys.CreateOperator)
	k.core = read("core", nkeys.CreateAccount)
	k.system = read("sys", nkeys.CreateAccount)
	for _, role := range []Role{Edge, Worker, Recorder, Link} {
		k.roles[role] = read("role-"+string(role), nkeys.CreateAccount)
	}
	return k, err
}

func (d Dir) key(name string, create func() (nkeys.KeyPair, error), fresh bool) (nkeys.KeyPair, error) {
	path := d.path(keyDir + "/" + name + ".nk")
	seed, err := os.ReadFile(path)
	switch {
	case err == nil:
		pair, err := nkeys.FromSeed([]byte(strings.TrimSpace(string(seed))))
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		return pair, nil
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("reading a key: %w", err)
	case !fresh:
		return nil, ErrNotMade
	}
	pair, err := create()
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	if seed, err = pair.Seed(); err != nil {
		return nil, fmt.Errorf("the key's seed: %w", err)
	}
	return pair, replace(path, append(seed, '\n'), 0o600)
}

// account is where a role's users are.
func (k *keys) account(role Role) nkeys.KeyPair {
	if role == System {
		return k.system
	}
	return k.core
}

// public is a key's public part. A pair that was read or made has one.
func public(pair nkeys.KeyPair) string {
	text, err := pair.PublicKey()
	if err != nil {
		return ""
	}
	return text
}

// accounts is the text of AccountsFile.
func (k *keys) accounts(hub string) ([]byte, error) {
	operator := jwt.NewOperatorClaims(public(k.operator))
	operator.Name, operator.SystemAccount = "usher", public(k.system)
	out, err := operator.Encode(k.operator)
	if err != nil {
		return nil, fmt.Errorf("signing the operator: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Made by usher creds init; the keys that sign it are elsewhere. Not secret.\n")
	fmt.Fprintf(&b, "operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload {\n", out, public(k.system))
	for _, c := range []*jwt.AccountClaims{k.coreClaims(hub), k.claims("SYS", k.system)} {
		out, err := c.Encode(k.operator)
		if err != nil {
			return nil, fmt.Errorf("signing account %s: %w", c.Name, err)
		}
		fmt.Fprintf(&b, "  # %s\n  %s: %s\n", c.Name, c.Subject, out)
	}
	b.WriteString("}\n")
	return []byte(b.String()), nil
}

func (k *keys) claims(name string, pair nkeys.KeyPair) *jwt.AccountClaims {
	c := jwt.NewAccountClaims(public(pair))
	c.Name = name
	return c
}

// coreClaims are the account of all processes and all streams. Edges are to move into one of
// their own, which imports what they may call. That waits until they read streams without the
// JetStream API: over an import, servers of a cluster other than the edge's own answer such a call too, and
// say that the edge's account has no JetStream (nats-server 2.15.2). Until then workers answer to inboxes
// alone (libs/bus), and permissions keep edges apart.
func (k *keys) coreClaims(hub string) *jwt.AccountClaims {
	c := k.claims("USHER", k.core)
	c.Limits.JetStreamLimits = jwt.JetStreamLimits{
		MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit,
	}
	const region, name = "{{tag(region)}}", "{{name()}}"
	k.scope(c, Edge, names.EdgePermissions(region, hub, name))
	k.scope(c, Worker, names.WorkerPermissions(region, hub, name))
	k.scope(c, Recorder, names.RecorderPermissions(name))
	k.scope(c, Link, names.LinkPermissions(region, hub))
	return c
}

// scope lets the role's key sign users that may do this and no more.
func (k *keys) scope(c *jwt.AccountClaims, role Role, p names.Permissions) {
	s := jwt.NewUserScope()
	s.Key, s.Role = public(k.roles[role]), string(role)
	s.Template.Permissions.Pub.Allow = append(jwt.StringList{}, p.Publish...)
	for _, subject := range p.Subscribe {
		// A server drops a template with a queue group: it takes it for a bad subject.
		subject, _, _ = strings.Cut(subject, " ")
		s.Template.Permissions.Sub.Allow.Add(subject)
	}
	c.SigningKeys.AddScopedSigner(s)
}
