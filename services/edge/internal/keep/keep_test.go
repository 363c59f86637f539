package keep

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"usher.internal/libs/access"
)

func sealer(t testing.TB, first byte) cipher.AEAD {
	t.Helper()
	secret := make([]byte, access.ClusterKeySize)
	secret[0] = first
	k, err := access.NewKeyer(secret)
	if err != nil {
		t.Fatal(err)
	}
	seal, err := k.Sealer("test")
	if err != nil {
		t.Fatal(err)
	}
	return seal
}

func opened(t testing.TB, path string, first byte) (*Store, string) {
	t.Helper()
	s, aside, err := Open(path, sealer(t, first))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // twice is no fault
	return s, aside
}

func all(t *testing.T, s *Store, b Bucket) (texts []string, lost int) {
	t.Helper()
	lost, err := s.Each(b, func(k, v []byte) { texts = append(texts, string(k)+"="+string(v)) })
	if err != nil {
		t.Fatal(err)
	}
	return texts, lost
}

func put(b Bucket, key, value string) Change { return Change{b, []byte(key), []byte(value)} }

func TestWhatIsKept(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "edge.state")
	s, aside := opened(t, path, 1)
	if aside != "" {
		t.Errorf("a new file was put aside as %q", aside)
	}
	err := s.Apply([]Change{put(Sessions, "b", "secret-token-2"), put(Sessions, "a", "secret-token-1"), put(Journal, "b", "3"), {Sessions, []byte("b"), nil}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("secret-token")) {
		t.Error("a value stands in the file in clear")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v, want 0600", info.Mode(), err)
	}
	s, _ = opened(t, path, 1)
	if got, lost := all(t, s, Sessions); fmt.Sprint(got) != "[a=secret-token-1]" || lost != 0 {
		t.Errorf("sessions = %v, %d lost", got, lost)
	}
	if s.Len(Journal) != 1 || s.Len(Orders) != 0 {
		t.Errorf("%d in the journal, %d orders", s.Len(Journal), s.Len(Orders))
	}
}

func TestAnotherClusterKeyReadsNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "edge.state")
	s, _ := opened(t, path, 1)
	if err := s.Apply([]Change{put(Sessions, "a", "1"), put(Policy, "p", "2")}); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	s, aside := opened(t, path, 2)
	if got, lost := all(t, s, Sessions); len(got) != 0 || lost != 1 || aside != "" {
		t.Errorf("sessions = %v, %d lost, aside %q", got, lost, aside)
	}
	if _, lost := all(t, s, Sessions); lost != 0 {
		t.Error("what cannot be read stays in the file")
	}
}

func TestAMovedValueIsNotRead(t *testing.T) {
	t.Parallel()
	s, _ := opened(t, filepath.Join(t.TempDir(), "s"), 1)
	a := put(Sessions, "a", "1")
	if v, ok := s.opened(Sessions, []byte("a"), s.sealed(a)); !ok || string(v) != "1" {
		t.Fatalf("opened = %q, %v", v, ok)
	}
	for _, to := range []Change{put(Sessions, "b", ""), put(Orders, "a", "")} {
		if _, ok := s.opened(to.Bucket, to.Key, s.sealed(a)); ok {
			t.Errorf("opened at %s %s", to.Bucket, to.Key)
		}
	}
}

func TestADamagedFileIsPutAside(t *testing.T) {
	t.Parallel()
	good := filepath.Join(t.TempDir(), "good")
	s, _ := opened(t, good, 1)
	var many []Change
	for i := range 500 {
		many = append(many, put(Sessions, fmt.Sprintf("key%d", i), string(make([]byte, 200))))
	}
	if err := s.Apply(many); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	raw, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	damage := map[string]func() []byte{
		"text":      func() []byte { return []byte("emergency: allow") },
		"cut":       func() []byte { return raw[:len(raw)/2/4096*4096] },
		"zeroed":    func() []byte { return append(append([]byte{}, raw[:8192]...), make([]byte, len(raw)-8192)...) },
		"scrambled": func() []byte { return scrambled(raw) },
	}
	for name, made := range damage {
		path := filepath.Join(t.TempDir(), "edge.state")
		if err := os.WriteFile(path, made(), 0o600); err != nil {
			t.Fatal(err)
		}
		s, aside := opened(t, path, 1)
		if aside == "" {
			t.Errorf("%s: it was taken for whole", name)
			continue
		}
		if _, err := os.Stat(aside); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.Add(put(Sessions, "a", "1")); err != nil {
			t.Errorf("%s: the new file: %v", name, err)
		}
	}
}

// scrambled has every page but the first two turned around.
func scrambled(raw []byte) []byte {
	out := append([]byte{}, raw...)
	for i := 8192; i < len(out); i++ {
		out[i] = ^out[i]
	}
	return out
}

func TestManyAddAtOnce(t *testing.T) {
	t.Parallel()
	s, _ := opened(t, filepath.Join(t.TempDir(), "s"), 1)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			if err := s.Add(put(Journal, fmt.Sprintf("%02d", i), "x")); err != nil {
				t.Errorf("Add: %v", err)
			}
		})
	}
	wg.Wait()
	if n := s.Len(Journal); n != 64 {
		t.Errorf("%d entries, want 64", n)
	}
}

func TestOneFileOneEdge(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	opened(t, path, 1)
	if _, _, err := openWithin(path, sealer(t, 1), 10*time.Millisecond); !errors.Is(err, ErrInUse) {
		t.Errorf("Open = %v, want ErrInUse", err)
	}
}
