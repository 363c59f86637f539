package upstream

import (
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	sound := Defaults()
	sound.URL = "https://auth.example.com/check?key=K"
	if err := sound.Validate(); err != nil {
		t.Fatalf("Validate = %v", err)
	}
	for name, change := range map[string]func(*Options){
		"no url":                  func(o *Options) { o.URL = "" },
		"no scheme":               func(o *Options) { o.URL = "auth.example.com/HUNTER2" },
		"another scheme":          func(o *Options) { o.URL = "ftp://auth.example.com/HUNTER2" },
		"no host":                 func(o *Options) { o.URL = "http:///HUNTER2" },
		"port alone":              func(o *Options) { o.URL = "http://:80/HUNTER2" },
		"user and password":       func(o *Options) { o.URL = "http://u:HUNTER2@auth.example.com/" },
		"fragment":                func(o *Options) { o.URL = "http://auth.example.com/#HUNTER2" },
		"line break":              func(o *Options) { o.URL = "http://auth.example.com/?a=HUNTER2\r\nb" },
		"space in the query":      func(o *Options) { o.URL = "http://auth.example.com/?a=HUNTER2 b" },
		"bad port":                func(o *Options) { o.URL = "http://auth.example.com:HUNTER2/" },
		"no timeout":              func(o *Options) { o.Timeout = 0 },
		"no concurrency":          func(o *Options) { o.MaxConcurrent = 0 },
		"breaker never opens":     func(o *Options) { o.Breaker.Failures = 0 },
		"breaker never open":      func(o *Options) { o.Breaker.Open = 0 },
		"expected header unnamed": func(o *Options) { o.ExpectHeader = ": value" },
		"a header with a space":   func(o *Options) { o.ExpectHeader = "X Auth" },
		"200 as unavailable":      func(o *Options) { o.UnavailableCodes = []int{200} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := sound
			change(&o)
			err := o.Validate()
			if err == nil {
				t.Fatal("Validate accepted it")
			}
			if strings.Contains(err.Error(), "HUNTER2") {
				t.Errorf("Validate = %v, which holds the secret", err)
			}
		})
	}
}

func FuzzClean(f *testing.F) {
	for _, q := range []string{"", "token=a%2Bb+c;d&token=e", "a b", "a\r\nb", "ü", "\x7f"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, q string) {
		if Clean(q) && strings.ContainsAny(q, "\r\n \t\x00\x7f") {
			t.Errorf("Clean let %q through", q)
		}
	})
}
