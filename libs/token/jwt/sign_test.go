package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"usher.internal/libs/token"
)

func ticket() token.Ticket {
	return token.Ticket{
		Stream: "bbc", IP: netip.MustParseAddr("203.0.113.7"), User: "u42", Device: "d1", Sessions: 3,
		Start: time.Unix(1700000000, 0), End: time.Unix(1700003600, 0),
	}
}

func withKey(key []byte) token.Ticket {
	t := ticket()
	t.Key = key
	return t
}

func options() *Options {
	o := NewOptions()
	o.Claims = Claims{User: "account.id", Device: "account.device", Sessions: "max", Streams: "ch", IP: "ip"}
	o.Issuer, o.Audience = Words{"https://portal.example"}, Words{"tv", "web"}
	o.MaxAge = 3600e9
	return o
}

// pairs are private keys of every kind: as PEM, with the public one that the check has.
func pairs(t *testing.T) map[string][2][]byte {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][2][]byte{}
	add := func(name string, private, public any) {
		a, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		b, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = [2][]byte{
			pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: a}),
			pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b}),
		}
	}
	add("RSA", rsaKey, &rsaKey.PublicKey)
	for name, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		add(name, k, &k.PublicKey)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	add("EdDSA", private, public)
	return out
}

func writeKeys(t *testing.T, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWhatIsSignedIsAccepted(t *testing.T) {
	t.Parallel()
	type way struct {
		o   *Options
		key []byte
	}
	ways := map[string]way{}
	secret := options()
	secret.Secret = secretFile(t, testSecret)
	ways["HS256"] = way{o: secret}
	for name, pair := range pairs(t) {
		o := options()
		o.KeyFile = writeKeys(t, pair[1])
		ways[name+" with its private key beside it"] = way{o, pair[0]}
		own := options()
		own.KeyFile = writeKeys(t, pair[0])
		ways[name+" with the private key as key_file"] = way{o: own}
		if name == "RSA" {
			for _, alg := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"} {
				o := options()
				o.KeyFile, o.Algorithms = writeKeys(t, pair[1]), []string{alg}
				ways[alg] = way{o, pair[0]}
			}
		}
	}
	for name, w := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := Sign(w.o, withKey(w.key))
			if err != nil {
				t.Fatal(err)
			}
			v := open(t, w.o, Deps{})
			id, err := v.Verify(t.Context(), question(tokenCase{Token: s.Token}))
			if err != nil || id.User != "u42" || id.Device != "d1" || id.Sessions != 3 {
				t.Errorf("Verify(Sign()) = %+v, %v", id, err)
			}
			parts, ok := Inspect(s.Token)
			if !ok || parts[0].Value != name[:5] && !strings.HasPrefix(name, "RSA") {
				t.Errorf("Inspect = %+v, %t", parts, ok)
			}
			for _, p := range parts {
				if p.Name == "exp" && p.Time.Unix() != 1700003600 {
					t.Errorf("Inspect says the end is %v", p.Time)
				}
			}
		})
	}
}

// The id of the key that a set has goes into the header, so that others find it.
func TestSignNamesTheKey(t *testing.T) {
	t.Parallel()
	set, _ := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: privateOf("k1").Public(), KeyID: "k1"}, {Key: privateOf("k2").Public(), KeyID: "k2"},
	}})
	private, _ := json.Marshal(jose.JSONWebKey{Key: privateOf("k2")})
	o := options()
	o.KeyFile = writeKeys(t, set)
	tk := ticket()
	tk.Key = private
	s, err := Sign(o, tk)
	if err != nil {
		t.Fatal(err)
	}
	if p, _ := parse(s.Token); p.header.Kid != "k2" {
		t.Errorf("kid = %q, want k2", p.header.Kid)
	}
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	foreign, _ := json.Marshal(jose.JSONWebKey{Key: privateOf("other")})
	raw, _ := json.Marshal(jose.JSONWebKey{Key: privateOf("k1").Public()})
	public := writeKeys(t, raw)
	for name, change := range map[string]func(*token.Ticket, *Options){
		"user that no claim holds":       func(_ *token.Ticket, o *Options) { o.Claims.User = "" },
		"device that no claim holds":     func(_ *token.Ticket, o *Options) { o.Claims.Device = "" },
		"number that no claim holds":     func(_ *token.Ticket, o *Options) { o.Claims.Sessions = "" },
		"address that no claim holds":    func(_ *token.Ticket, o *Options) { o.Claims.IP = "" },
		"no address where one is wanted": func(t *token.Ticket, _ *Options) { t.IP = netip.Addr{} },
		"end before its start":           func(t *token.Ticket, _ *Options) { t.End = t.Start.Add(-time.Hour) },
		"salt":                           func(t *token.Ticket, _ *Options) { t.Salt = "x" },
		"key beside a secret":            func(t *token.Ticket, _ *Options) { t.Key = foreign },
		"key that the check does not know": func(t *token.Ticket, o *Options) {
			o.Secret, o.KeyFile, t.Key = NewOptions().Secret, public, foreign
		},
		"public keys alone":   func(_ *token.Ticket, o *Options) { o.Secret, o.KeyFile = NewOptions().Secret, public },
		"no key for a set":    func(_ *token.Ticket, o *Options) { o.Secret, o.JWKS.URL = NewOptions().Secret, "https://i.example/" },
		"longer than a token": func(t *token.Ticket, _ *Options) { t.Stream = strings.Repeat("s", 5000) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, tk := options(), ticket()
			o.Secret = secretFile(t, testSecret)
			change(&tk, o)
			if s, err := Sign(o, tk); err == nil {
				t.Errorf("Sign = %+v, want an error", s)
			}
		})
	}
}
