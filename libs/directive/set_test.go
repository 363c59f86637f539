package directive_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/directive"
)

var now = time.Date(2026, 11, 24, 22, 0, 0, 0, time.UTC)

// ban is a good ban with the criteria that change sets.
func ban(change func(*directive.Directive)) directive.Directive {
	d := directive.Directive{
		ID: uuid.Must(uuid.NewV7()), Kind: directive.Ban, Action: directive.Deny, At: now.Add(-time.Minute), Reason: "resells", Author: "anna",
	}
	change(&d)
	return d
}

// order is an override that ends in an hour.
func order(action directive.Action, change func(*directive.Directive)) directive.Directive {
	return ban(func(d *directive.Directive) {
		d.Kind, d.Action, d.Until = directive.Override, action, now.Add(time.Hour)
		change(d)
	})
}

// full is a viewer of whom everything is known.
func full() directive.Viewer {
	return directive.Viewer{
		Realm: "main", User: "17", IP: netip.MustParseAddr("203.0.113.7"), Stream: "sport/one", Node: "astra1",
		Device: "box-1", Token: access.Key{9},
	}
}

func TestEachCriterionHitsWhomItNames(t *testing.T) {
	t.Parallel()
	type set = func(*directive.Directive)
	for name, c := range map[string]struct {
		of   set
		hits bool
	}{
		"user":                   {func(d *directive.Directive) { d.Realm, d.User = "main", "17" }, true},
		"same user, other realm": {func(d *directive.Directive) { d.Realm, d.User = "tv", "17" }, false},
		"other user":             {func(d *directive.Directive) { d.Realm, d.User = "main", "18" }, false},
		"realm":                  {func(d *directive.Directive) { d.Realm = "main" }, true},
		"other realm":            {func(d *directive.Directive) { d.Realm = "tv" }, false},
		"address":                {func(d *directive.Directive) { d.Network = netip.MustParsePrefix("203.0.113.7/32") }, true},
		"network":                {func(d *directive.Directive) { d.Network = netip.MustParsePrefix("203.0.112.0/20") }, true},
		"everybody":              {func(d *directive.Directive) { d.Network = netip.MustParsePrefix("0.0.0.0/0") }, true},
		"other network":          {func(d *directive.Directive) { d.Network = netip.MustParsePrefix("203.0.114.0/24") }, false},
		"the other family":       {func(d *directive.Directive) { d.Network = netip.MustParsePrefix("::/0") }, false},
		"stream":                 {func(d *directive.Directive) { d.Stream = "sport/*" }, true},
		"other stream":           {func(d *directive.Directive) { d.Stream = "sport" }, false},
		"node":                   {func(d *directive.Directive) { d.Node = "astra1" }, true},
		"other node":             {func(d *directive.Directive) { d.Node = "astra2" }, false},
		"device":                 {func(d *directive.Directive) { d.Device = "box-1" }, true},
		"other device":           {func(d *directive.Directive) { d.Device = "box-2" }, false},
		"token":                  {func(d *directive.Directive) { d.Token = access.Key{9} }, true},
		"other token":            {func(d *directive.Directive) { d.Token = access.Key{8} }, false},
		"user on stream":         {func(d *directive.Directive) { d.Realm, d.User, d.Stream = "main", "17", "sport/**" }, true},
		"user on another stream": {func(d *directive.Directive) { d.Realm, d.User, d.Stream = "main", "17", "news" }, false},
		"token from elsewhere":   {func(d *directive.Directive) { d.Token, d.Network = access.Key{9}, netip.MustParsePrefix("10.0.0.0/8") }, false},
		"it has ended":           {func(d *directive.Directive) { d.Node, d.Until = "astra1", now }, false},
		"it ends in a moment":    {func(d *directive.Directive) { d.Node, d.Until = "astra1", now.Add(time.Millisecond) }, true},
		"a pattern that is none": {func(d *directive.Directive) { d.Stream = "***" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, v := ban(c.of), full()
			found := directive.NewSet(d).Ban(&v, now)
			if (found != nil) != c.hits || found != nil && found.ID != d.ID {
				t.Errorf("Ban = %v, want a hit: %v", found, c.hits)
			}
			// The same out of a book, between others that hit nobody, and gone again once revoked.
			b := directive.NewBook()
			for i := range 50 {
				b.Put(ban(func(d *directive.Directive) { d.Realm, d.User = "main", fmt.Sprint("u", i) }))
				b.Put(ban(func(d *directive.Directive) {
					d.Network = netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32)
				}))
			}
			b.Put(d)
			if got := b.Set().Ban(&v, now) != nil; got != c.hits {
				t.Errorf("out of a book: a hit %v, want %v", got, c.hits)
			}
			b.Revoke(d.ID, now)
			if got := b.Set().Ban(&v, now); got != nil || b.Set().Len() != 100 {
				t.Errorf("after its end: %v of %d", got, b.Set().Len())
			}
		})
	}
}

func TestOfWhomNothingIsKnownNothingHits(t *testing.T) {
	t.Parallel()
	s := directive.NewSet(
		ban(func(d *directive.Directive) { d.Realm, d.User = "main", "17" }),
		ban(func(d *directive.Directive) { d.Realm = "main" }),
		ban(func(d *directive.Directive) { d.Token = access.Key{1} }),
		ban(func(d *directive.Directive) { d.Device = "x" }),
		ban(func(d *directive.Directive) { d.Network = netip.MustParsePrefix("0.0.0.0/0") }),
	)
	if d := s.Ban(&directive.Viewer{}, now); d != nil {
		t.Errorf("Ban of nobody = %s", d.Criteria())
	}
	var none *directive.Set
	v := full()
	if none.Ban(&v, now) != nil || none.Ruling(&v, now) != nil || none.Limit(&v, now) != nil || none.Answer(&v, now) != nil ||
		none.Refusal(&v, now) != nil || none.MayAllow(&v, now) || none.NeedsToken() || none.AllowsUsers() || none.Len() != 0 {
		t.Error("the nil set is not empty")
	}
}

func TestTheLaterOverrideStandsAndABanAboveAll(t *testing.T) {
	t.Parallel()
	v := full()
	broad := order(directive.Deny, func(d *directive.Directive) { d.Stream = "**" })
	vip := order(directive.Allow, func(d *directive.Directive) { d.Realm, d.User, d.At = "main", "17", broad.At.Add(time.Second) })
	if d := directive.NewSet(broad, vip).Ruling(&v, now); d == nil || d.ID != vip.ID {
		t.Errorf("Ruling = %v, want the later allow", d)
	}
	late := broad
	late.At = vip.At.Add(time.Second)
	if d := directive.NewSet(late, vip).Refusal(&v, now); d == nil || d.ID != late.ID {
		t.Errorf("Refusal = %v, want the later deny", d)
	}
	if d := directive.NewSet(broad, vip).Refusal(&v, now); d != nil {
		t.Errorf("Refusal = %v, want none: he was let in later", d)
	}
	b := ban(func(d *directive.Directive) { d.Node = "astra1" })
	if d := directive.NewSet(broad, vip, b).Refusal(&v, now); d == nil || d.ID != b.ID {
		t.Errorf("Refusal = %v, want the ban", d)
	}
}

func TestLimitsAndChecksAreNoRulings(t *testing.T) {
	t.Parallel()
	v := full()
	two := order(directive.Limit, func(d *directive.Directive) { d.Limit, d.Realm, d.User = 2, "main", "17" })
	portal := order(directive.Allow, func(d *directive.Directive) { d.Check = "portal" })
	s := directive.NewSet(two, portal)
	if s.Ruling(&v, now) != nil || s.Answer(&v, now) != nil {
		t.Error("a limit or another check's word decided")
	}
	if d := s.Limit(&v, now); d == nil || d.Limit != 2 {
		t.Errorf("Limit = %v, want 2", d)
	}
	v.Check = "portal"
	if d := s.Answer(&v, now); d == nil || d.ID != portal.ID {
		t.Errorf("Answer = %v, want the portal's", d)
	}
	if !s.MayAllow(&directive.Viewer{}, now) {
		t.Error("a stranger may not be judged although a check's word is given")
	}
	if directive.NewSet(two).MayAllow(&v, now) {
		t.Error("a limit lets somebody in")
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	node := func(d *directive.Directive) { d.Node = "n" }
	for name, d := range map[string]directive.Directive{
		"nobody":                  ban(func(*directive.Directive) {}),
		"no reason":               ban(func(d *directive.Directive) { node(d); d.Reason = "" }),
		"no author":               ban(func(d *directive.Directive) { node(d); d.Author = "" }),
		"no id":                   ban(func(d *directive.Directive) { node(d); d.ID = uuid.Nil }),
		"a user without a realm":  ban(func(d *directive.Directive) { d.User = "17" }),
		"a ban that allows":       ban(func(d *directive.Directive) { node(d); d.Action = directive.Allow }),
		"a ban of a check":        ban(func(d *directive.Directive) { d.Check = "portal" }),
		"over before it begins":   ban(func(d *directive.Directive) { node(d); d.Until = d.At }),
		"a pattern that is none":  ban(func(d *directive.Directive) { d.Stream = "***" }),
		"bits beyond the length":  ban(func(d *directive.Directive) { d.Network = netip.MustParsePrefix("10.0.0.1/8") }),
		"two lines":               ban(func(d *directive.Directive) { node(d); d.Reason = "a\nb" }),
		"another kind":            ban(func(d *directive.Directive) { node(d); d.Kind = "wish" }),
		"another action":          order("maybe", node),
		"an override without end": order(directive.Deny, func(d *directive.Directive) { node(d); d.Until = time.Time{} }),
		"one of 31 days":          order(directive.Deny, func(d *directive.Directive) { node(d); d.Until = d.At.Add(31 * 24 * time.Hour) }),
		"a limit of none":         order(directive.Limit, node),
		"an allow with a limit":   order(directive.Allow, func(d *directive.Directive) { node(d); d.Limit = 2 }),
	} {
		if d.Validate() == nil {
			t.Errorf("%s: it is valid", name)
		}
	}
	for name, d := range map[string]directive.Directive{
		"ban without end": ban(node), "override": order(directive.Allow, node),
		"limit": order(directive.Limit, func(d *directive.Directive) { d.Realm, d.User, d.Limit = "main", "17", 3 }),
	} {
		if err := d.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWordsNameWhoAndWhy(t *testing.T) {
	t.Parallel()
	d := order(directive.Deny, func(d *directive.Directive) {
		d.Realm, d.User, d.Network, d.Stream = "tv", "17", netip.MustParsePrefix("10.1.2.3/32"), "sport/**"
	})
	if got, want := d.Words(), "override "+d.ID.String()+" by anna, until 2026-11-24 23:00:00Z: resells"; got != want {
		t.Errorf("Words = %q, want %q", got, want)
	}
	if got, want := d.Criteria(), "user tv/17, ip 10.1.2.3, stream sport/**"; got != want {
		t.Errorf("Criteria = %q, want %q", got, want)
	}
}

// BenchmarkBanOfAnAddress looks up viewers among 100,000 bans of single addresses.
func BenchmarkBanOfAnAddress(b *testing.B) {
	list := make([]directive.Directive, 100_000)
	for i := range list {
		list[i] = ban(func(d *directive.Directive) {
			d.Network = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		})
	}
	s := directive.NewSet(list...)
	hit, miss := full(), full()
	hit.IP = netip.MustParseAddr("10.0.200.7")
	for name, c := range map[string]struct {
		v    *directive.Viewer
		want bool
	}{"hit": {&hit, true}, "miss": {&miss, false}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if (s.Ban(c.v, now) != nil) != c.want {
					b.Fatal("wrong answer")
				}
			}
		})
	}
	b.Run("one more", func(b *testing.B) {
		book := directive.NewBook()
		book.Load(list)
		b.ReportAllocs()
		for b.Loop() {
			d := ban(func(d *directive.Directive) { d.Network = netip.MustParsePrefix("192.0.2.1/32") })
			book.Put(d)
			book.Revoke(d.ID, now)
		}
	})
}
