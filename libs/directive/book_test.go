package directive_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"usher.internal/libs/access"
	"usher.internal/libs/directive"
	"usher.internal/schemas/proto/usherv1"
)

func TestABookDoesNotCareAboutOrder(t *testing.T) {
	t.Parallel()
	d := ban(func(d *directive.Directive) { d.Node = "astra1" })
	given, revoked := d.Control(false, d.At), d.Control(true, now)
	for name, messages := range map[string][]*usherv1.Control{
		"given, revoked":                {given, revoked},
		"told twice":                    {given, given, revoked, revoked},
		"revoked before it was heard":   {revoked, given},
		"restated after it was revoked": {given, revoked, given},
	} {
		b := directive.NewBook()
		changes := 0
		for _, m := range messages {
			_, _, changed, err := b.Apply(m, now)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if changed {
				changes++
			}
		}
		v := full()
		if b.Set().Len() != 0 || b.Set().Ban(&v, now) != nil || changes > 2 {
			t.Errorf("%s: %d in force after %d changes", name, b.Set().Len(), changes)
		}
		b.Load([]directive.Directive{d})
		if b.Set().Len() != 0 {
			t.Errorf("%s: an older database brought it back", name)
		}
	}
}

func TestSweepForgetsWhatHasEnded(t *testing.T) {
	t.Parallel()
	b := directive.NewBook()
	ends, stays := ban(func(d *directive.Directive) { d.Node, d.Until = "n", now.Add(time.Minute) }), ban(func(d *directive.Directive) { d.Node = "n" })
	b.Load([]directive.Directive{ends, stays, ends})
	if b.Set().Len() != 2 {
		t.Fatalf("%d in the set, want 2", b.Set().Len())
	}
	b.Revoke(stays.ID, now)
	b.Sweep(now.Add(time.Hour))
	if b.Set().Len() != 0 {
		t.Errorf("%d left, want none", b.Set().Len())
	}
	b.Load([]directive.Directive{stays})
	if b.Set().Len() != 0 {
		t.Error("a revoked one came back within two days")
	}
	b.Sweep(now.Add(72 * time.Hour))
	b.Load([]directive.Directive{stays})
	if b.Set().Len() != 1 {
		t.Error("revocations are remembered for ever")
	}
}

func everything() directive.Directive {
	return order(directive.Limit, func(d *directive.Directive) {
		d.Limit, d.Realm, d.User, d.Network, d.Stream = 3, "tv", "17", netip.MustParsePrefix("2001:db8::/32"), "a/**"
		d.Node, d.Check, d.Device, d.Token = "n", "portal", "box", access.Key{1, 2}
	})
}

func TestTheWireKeepsEverything(t *testing.T) {
	t.Parallel()
	for _, d := range []directive.Directive{everything(), ban(func(d *directive.Directive) { d.Realm = "main" })} {
		raw, err := proto.Marshal(d.Control(false, d.At))
		if err != nil {
			t.Fatal(err)
		}
		c := new(usherv1.Control)
		if err := proto.Unmarshal(raw, c); err != nil {
			t.Fatal(err)
		}
		got, revoked, err := directive.FromControl(c)
		if err != nil || revoked {
			t.Fatalf("FromControl = revoked %v, %v", revoked, err)
		}
		if got != d {
			t.Errorf("FromControl = %+v, want %+v", got, d)
		}
		if again := got.Control(false, d.At); !proto.Equal(c, again) {
			t.Errorf("written again it is %v, want %v", again, c)
		}
	}
}

func TestWhatIsNotUnderstoodHitsNobody(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*usherv1.Directive){
		"no id":         func(m *usherv1.Directive) { m.Id = nil },
		"no criterion":  func(m *usherv1.Directive) { m.Node = "" },
		"a bad network": func(m *usherv1.Directive) { m.Network = "10.0.0.0" },
		"a bad token":   func(m *usherv1.Directive) { m.Token = []byte{1} },
		"a bad pattern": func(m *usherv1.Directive) { m.Stream = "***" },
		"a new kind":    func(m *usherv1.Directive) { m.Kind = "wish" },
		"a new action":  func(m *usherv1.Directive) { m.Action = "redirect" },
		"a new field":   func(m *usherv1.Directive) { m.ProtoReflect().SetUnknown([]byte{0xf8, 0x07, 0x01}) },
	} {
		d := ban(func(d *directive.Directive) { d.Node = "astra1" })
		c := d.Control(false, d.At)
		change(c.GetDirective())
		b := directive.NewBook()
		if _, _, _, err := b.Apply(c, now); !errors.Is(err, directive.ErrUnknown) || b.Set().Len() != 0 {
			t.Errorf("%s: Apply = %v with %d in force, want ErrUnknown", name, err, b.Set().Len())
		}
	}
	b := directive.NewBook()
	if _, _, changed, err := b.Apply(&usherv1.Control{Kind: "kill"}, now); changed || err != nil {
		t.Errorf("a kill changed the book: %v, %v", changed, err)
	}
}

func FuzzFromControl(f *testing.F) {
	d := everything()
	for _, revoked := range []bool{false, true} {
		raw, err := proto.Marshal(d.Control(revoked, d.At))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte{0x7a, 0x02, 0x0a, 0x00})
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := new(usherv1.Control)
		if proto.Unmarshal(raw, c) != nil {
			return
		}
		d, revoked, err := directive.FromControl(c)
		if err != nil || revoked {
			return
		}
		again, _, err := directive.FromControl(d.Control(false, d.At))
		if err != nil || again != d {
			t.Errorf("read %+v, written and read again %+v, %v", d, again, err)
		}
		b := directive.NewBook()
		v := full()
		b.Put(d)
		b.Set().Refusal(&v, now)
		b.Revoke(d.ID, now)
		if b.Set().Len() != 0 {
			t.Error("it cannot be revoked")
		}
	})
}
