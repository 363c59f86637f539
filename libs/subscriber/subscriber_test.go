package subscriber

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"usher.internal/libs/access"
)

func testKeyer(t testing.TB) *access.Keyer {
	t.Helper()
	k, err := access.NewKeyer(bytes.Repeat([]byte{7}, access.ClusterKeySize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestPasswordHash(t *testing.T) {
	t.Parallel()
	a, b := HashPassword("secret"), HashPassword("secret")
	if a == b || !strings.HasPrefix(a, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("two hashes: %s %s", a, b)
	}
	for password, want := range map[string]bool{"secret": true, "Secret": false, "": false} {
		if got, err := CheckPassword(a, password); err != nil || got != want {
			t.Errorf("CheckPassword(%q) = %v, %v", password, got, err)
		}
	}
	// A vector of the reference implementation: version 19, t=2, m=2^16, p=1, salt "somesalt".
	const reference = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	if good, err := CheckPassword(reference, "password"); err != nil || !good {
		t.Errorf("the reference's hash: %v, %v", good, err)
	}
	for _, bad := range []string{
		"", "x", strings.Replace(a, "argon2id", "argon2i", 1), strings.Replace(a, "v=19", "v=16", 1), strings.Replace(a, "m=19456", "m=99999999", 1),
		strings.Replace(a, "t=2", "t=0", 1), strings.Replace(a, "p=1", "p=0", 1), strings.Replace(a, "p=1", "p=257", 1), a + "$", a[:len(a)-30],
		strings.Replace(a, "m=19456,", "m=19456, ", 1), "$argon2id$v=19$m=64,t=1,p=1$$",
	} {
		if _, err := CheckPassword(bad, "secret"); !errors.Is(err, ErrHash) {
			t.Errorf("CheckPassword under %q = %v, want ErrHash", bad, err)
		}
	}
}

func TestPasswordsRemember(t *testing.T) {
	t.Parallel()
	p, hash := NewPasswords(testKeyer(t)), HashPassword("secret")
	check := func(login, hash, password string) bool {
		t.Helper()
		good, err := p.Check(t.Context(), "main", login, hash, password)
		if err != nil {
			t.Fatal(err)
		}
		return good
	}
	if !check("anna", hash, "secret") || check("anna", hash, "wrong") || check("otto", "", "nobody") || check("otto", "", "secret") {
		t.Fatal("the first round went wrong")
	}
	p.turns <- struct{}{}
	for len(p.turns) < cap(p.turns) {
		p.turns <- struct{}{}
	}
	// No processor is left: what is known is answered, what is not is refused in time.
	if !check("anna", hash, "secret") || check("anna", hash, "wrong") || check("otto", "", "nobody") {
		t.Error("what is remembered is answered otherwise")
	}
	if _, err := p.Check(t.Context(), "main", "anna", hash, "another"); !errors.Is(err, ErrBusy) {
		t.Errorf("an unknown password without a processor: %v, want ErrBusy", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Check(ctx, "main", "anna", HashPassword("secret"), "secret"); !errors.Is(err, context.Canceled) {
		t.Errorf("a changed hash must be checked anew: %v", err)
	}
}

func TestPasswordsAreBounded(t *testing.T) {
	t.Parallel()
	p, hash := NewPasswords(testKeyer(t)), HashPassword("secret")
	long := strings.Repeat("x", 1<<20)
	if good, err := p.Check(t.Context(), "main", "anna", hash, long); err != nil || good {
		t.Errorf("a password of 1 MiB: %v, %v", good, err)
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if good, err := p.Check(t.Context(), "main", "anna", hash, strings.Repeat("y", i)); good || err != nil && !errors.Is(err, ErrBusy) {
				t.Errorf("Check = %v, %v", good, err)
			}
		})
	}
	all.Wait()
}

func TestUnknownLoginsTakeAsLong(t *testing.T) {
	t.Parallel()
	p, hash := NewPasswords(testKeyer(t)), HashPassword("secret")
	took := func(login, hash string, i int) time.Duration {
		began := time.Now()
		if good, err := p.Check(t.Context(), "main", login, hash, strings.Repeat("p", i+1)); err != nil || good {
			t.Fatalf("Check = %v, %v, want a wrong password", good, err)
		}
		return time.Since(began)
	}
	// The least of each, one after the other: whatever else the machine does only adds to it.
	known, unknown := time.Hour, time.Hour
	for i := range 50 {
		known, unknown = min(known, took("anna", hash, i)), min(unknown, took("otto", "", i))
		if i >= 2 && unknown >= known/4 && known >= unknown/4 {
			return
		}
	}
	t.Errorf("a known login takes %v, an unknown one %v", known, unknown)
}

func TestPackage(t *testing.T) {
	t.Parallel()
	p, err := NewPackage("basic", []string{"news", "sport/*", "kids/**"})
	if err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string]bool{
		"news": true, "news/hd": false, "sport/1": true, "sport/1/hd": false, "kids/a/b": true, "": false, "News": false,
	} {
		if got := p.Has(stream); got != want {
			t.Errorf("Has(%q) = %v", stream, got)
		}
	}
	if _, err := NewPackage("bad", []string{"news", "a***"}); err == nil || !strings.Contains(err.Error(), `"a***"`) {
		t.Errorf("a bad pattern: %v", err)
	}
	if !Exact("news") || Exact("sport/*") || Exact("") {
		t.Error("Exact tells names from patterns wrongly")
	}
}
