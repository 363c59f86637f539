package securelink

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"usher.internal/libs/token"
)

// FuzzVerify holds for any address: no panic, no outcome but the three, and nobody gets in
// but by the one link that was signed.
func FuzzVerify(f *testing.F) {
	secret := secretFile(f, "secret")
	var all []*Verifier
	for _, change := range []func(*Options){
		func(*Options) {},
		func(o *Options) { o.Hash, o.Cut = "{secret}{path}{expires}", []string{"/playlist.m3u8"} },
		func(o *Options) { o.Hash, o.Path = "{expires}{path}{ip} {secret}", "/{md5}/{expires}{path}" },
		func(o *Options) { o.Form = FormSecret },
	} {
		o := NewOptions()
		o.Secret = secret
		change(o)
		v, err := New(o)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, v)
	}
	const hash = "_e4Nc3iduzkWRm01TBBNYw"
	f.Add("/s/link", "md5="+hash+"&expires=2147483647")
	f.Add("/"+hash+"/2147483647/s/link", "")
	f.Add("/p/5e814704a28d9bc1914ff19fa0c4a00a/link", "a=b")
	f.Add("/s/lin%6b", "MD5="+hash+"%3D&expires=2147483647&&=&x")
	f.Add("", "md5=&expires=")
	f.Fuzz(func(t *testing.T, path, query string) {
		for i, v := range all {
			q := &token.Question{Path: path, Query: query, Stream: "bbc", IP: netip.MustParseAddr("127.0.0.1"), Now: time.Unix(1700000100, 0)}
			id, err := v.Verify(t.Context(), q)
			if got, _ := outcome(t, err); got != "allow" {
				continue
			}
			if id.Bearer == "" || !strings.Contains(strings.ToLower(path+query), strings.ToLower(id.Bearer)) {
				t.Errorf("options %d: Verify(%q, %q) = %+v", i, path, query, id)
			}
			if v.opts.Form == FormMD5 && id.Bearer != hash || v.opts.Form == FormSecret && !strings.Contains(path, "/") {
				t.Errorf("options %d: Verify let in %q %q", i, path, query)
			}
		}
	})
}

func FuzzParseTemplate(f *testing.F) {
	for _, s := range []string{"{expires}{path}{ip} {secret}", "$secure_link_expires$uri$remote_addr x", "${arg_a}", "$", "{", "}", "{arg_}", "$arg_a-b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		parts, err := parseTemplate(s)
		if err != nil {
			return
		}
		if len(parts) == 0 || len(parts) > maxTemplate {
			t.Errorf("parseTemplate(%q) = %d parts", s, len(parts))
		}
		parts.fill(nil, &values{})
	})
}
