// Package creds makes the NATS credentials of a cluster: an operator and its accounts, of which
// the servers are told by one file (accounts.conf), and a credentials file for each process.
//
// Users are signed with scoped keys, whose permissions stand in accounts.conf: a server needs no
// word of a new edge and no resolver to ask, and a new version's permissions reach all edges with one file.
package creds

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	names "usher.internal/schemas/nats"
)

// Role is what a process does on the bus.
type Role string

// Roles. Link is a region's NATS servers towards the hub's, System a look into the servers.
const (
	Edge     Role = "edge"
	Worker   Role = "worker"
	Recorder Role = "recorder"
	Link     Role = "link"
	System   Role = "system"
)

// Files of the directory.
const (
	// AccountsFile is what NATS servers include. It holds no secret.
	AccountsFile = "accounts.conf"
	hubFile      = "hub"
	keyDir       = "keys"
)

// ErrNotMade means that Init has not run in the directory.
var ErrNotMade = errors.New("no keys here: run usher creds init first")

// Dir is where the keys are: as secret as a CA's, and needed only to make credentials.
type Dir string

// Init makes the keys that are missing and writes AccountsFile anew, with this version's
// permissions. hub is the region of policy and control stream; "" keeps the one of before.
func (d Dir) Init(hub string) error {
	if hub == "" {
		var err error
		if hub, err = d.hub(); err != nil {
			return err
		}
	}
	if err := checkRegion(hub); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(string(d), keyDir), 0o700); err != nil {
		return fmt.Errorf("making the directory of keys: %w", err)
	}
	k, err := d.load(true)
	if err != nil {
		return err
	}
	text, err := k.accounts(hub)
	if err != nil {
		return err
	}
	if err := replace(d.path(hubFile), []byte(hub+"\n"), 0o644); err != nil {
		return err
	}
	return replace(d.path(AccountsFile), text, 0o644)
}

// Issue makes the credentials of one process, for the time given (0: for ever): the content of a
// file that only it may read. region is where it runs; recorder and system need none.
func (d Dir) Issue(role Role, name, region string, valid time.Duration) ([]byte, error) {
	k, err := d.load(false)
	if err != nil {
		return nil, err
	}
	if err := names.CheckToken("name", name); err != nil {
		return nil, err
	}
	if role != Recorder && role != System {
		if err := checkRegion(region); err != nil {
			return nil, err
		}
	}
	user, err := nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	c := jwt.NewUserClaims(public(user))
	c.Name = name
	if region != "" {
		c.Tags.Add("region:" + region)
	}
	if valid > 0 {
		c.Expires = time.Now().Add(valid).Unix()
	}
	signer := k.account(role)
	if key, scoped := k.roles[role]; scoped {
		c.IssuerAccount = public(k.account(role))
		c.SetScoped(true)
		signer = key
	}
	token, err := c.Encode(signer)
	if err != nil {
		return nil, fmt.Errorf("signing the credentials of %s: %w", name, err)
	}
	seed, err := user.Seed()
	if err != nil {
		return nil, fmt.Errorf("the key's seed: %w", err)
	}
	return jwt.FormatUserConfig(token, seed)
}

// Account is the public name of the account that a role's users are in.
func (d Dir) Account(role Role) (string, error) {
	k, err := d.load(false)
	if err != nil {
		return "", err
	}
	return public(k.account(role)), nil
}

func (d Dir) path(name string) string { return filepath.Join(string(d), name) }

func (d Dir) hub() (string, error) {
	text, err := os.ReadFile(d.path(hubFile))
	if errors.Is(err, os.ErrNotExist) {
		return "", errors.New("the hub's region is not known: usher creds init --hub REGION")
	}
	return strings.TrimSpace(string(text)), err
}

// checkRegion refuses what NATS would change: it writes tags in lower case.
func checkRegion(region string) error {
	if err := names.CheckToken("region", region); err != nil {
		return err
	}
	if strings.ToLower(region) != region {
		return fmt.Errorf("region name %q: credentials need it in lower case", region)
	}
	return nil
}

// replace writes beside the file and renames, so that nobody reads half of it.
func replace(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
