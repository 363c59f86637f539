package securetoken

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"usher.internal/libs/token"
)

func TestSign(t *testing.T) {
	t.Parallel()
	now := time.Unix(1700000100, 0)
	viewer := netip.MustParseAddr("203.0.113.7")
	good := Ticket{Stream: "bbc", Path: "/play/bbc/index.m3u8", IP: viewer, Start: now.Add(-300 * time.Second), End: now.Add(time.Hour)}
	with := func(change func(*Ticket)) Ticket { tk := good; change(&tk); return tk }
	for name, c := range map[string]struct {
		options func(*Options)
		ticket  Ticket
	}{
		"by stream":              {nil, good},
		"by path":                {func(o *Options) { o.Bind = BindPath }, good},
		"with a user":            {nil, with(func(t *Ticket) { t.User = "u42" })},
		"user is a number":       {nil, with(func(t *Ticket) { t.User = "1700000001" })},
		"user is a UUID":         {nil, with(func(t *Ticket) { t.User = "6217fd62-16da-4206-9da9-0173d7552a14" })},
		"user is an address":     {nil, with(func(t *Ticket) { t.User = "a.b+c@example.com" })},
		"user looks like times":  {nil, with(func(t *Ticket) { t.User = "1700000000-1700000001" })},
		"salt looks like times":  {nil, with(func(t *Ticket) { t.Salt, t.User = "a-1700000000-1700000001", "u" })},
		"fixed salt":             {func(o *Options) { o.SaltLength = 7 }, with(func(t *Ticket) { t.User = "u42" })},
		"dash in the salt":       {nil, with(func(t *Ticket) { t.Salt, t.User = "a-b-c", "u-v" })},
		"IPv6":                   {nil, with(func(t *Ticket) { t.IP = netip.MustParseAddr("2001:db8::7") })},
		"any address, literal":   {func(o *Options) { o.CheckIP = false }, with(func(t *Ticket) { t.IP = netip.Addr{} })},
		"any address, empty":     {func(o *Options) { o.AllowEmptyIP = true }, with(func(t *Ticket) { t.IP = netip.Addr{} })},
		"user must be there, is": {func(o *Options) { o.RequireUser = true }, with(func(t *Ticket) { t.User = "u" })},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := NewOptions()
			o.Secret = secretFile(t, "SECRETKEY")
			if c.options != nil {
				c.options(o)
			}
			tok, err := Sign(o, c.ticket)
			if err != nil {
				t.Fatal(err)
			}
			v, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			ip := c.ticket.IP
			if !ip.IsValid() {
				ip = viewer
			}
			id, err := v.Verify(t.Context(), &token.Question{Token: tok, Stream: c.ticket.Stream, Path: c.ticket.Path, IP: ip, Now: now})
			if err != nil || id.User != c.ticket.User {
				t.Errorf("Verify(Sign()) = user %q, %v, want %q", id.User, err, c.ticket.User)
			}
		})
	}
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	good := Ticket{Stream: "bbc", IP: netip.MustParseAddr("203.0.113.7"), Start: time.Unix(1700000000, 0), End: time.Unix(1700010800, 0)}
	for name, change := range map[string]func(*Ticket, *Options){
		"no stream":              func(t *Ticket, _ *Options) { t.Stream = "" },
		"no path":                func(_ *Ticket, o *Options) { o.Bind = BindPath },
		"no address":             func(t *Ticket, _ *Options) { t.IP = netip.Addr{} },
		"salt with a space":      func(t *Ticket, _ *Options) { t.Salt = "a b" },
		"salt of another length": func(t *Ticket, o *Options) { t.Salt, o.SaltLength = "abc", 4 },
		"user over the cap":      func(t *Ticket, _ *Options) { t.User = strings.Repeat("u", maxUser+1) },
		"time before 2001":       func(t *Ticket, _ *Options) { t.Start = time.Unix(999999999, 0) },
		"no secret":              func(_ *Ticket, o *Options) { o.Secret = NewOptions().Secret },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, tk := NewOptions(), good
			o.Secret = secretFile(t, "SECRETKEY")
			change(&tk, o)
			if tok, err := Sign(o, tk); err == nil {
				t.Errorf("Sign = %q, want an error", tok)
			}
		})
	}
}
