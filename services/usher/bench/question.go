package main

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"usher.internal/libs/config"
	"usher.internal/libs/token/securetoken"
)

const (
	// secret signs the tokens of a run; it is given to the children by environment.
	secret     = "bench-secret-of-one-run"
	saltLength = 16
	users      = 100_000
	agent      = "Mozilla/5.0 (Linux; Android 11; SmartTV) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/118.0 Safari/537.36"
)

// questions are requests of the nginx dialect, made beforehand. Giving one out costs a counter.
type questions struct {
	all  [][]byte
	next atomic.Int64
}

func (q *questions) take() []byte {
	return q.all[(q.next.Add(1)-1)%int64(len(q.all))]
}

// viewer is whom a question is about.
type viewer struct {
	user, stream, ip, token string
}

// someone is a random one of the round's users, from an address of his own so that he is
// another device than all others.
func someone(round, n int) viewer {
	return viewer{
		user:   fmt.Sprintf("r%du%d", round, rand.IntN(users)),
		stream: fmt.Sprintf("channel-%d", rand.IntN(200)),
		ip:     fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255),
	}
}

// signer makes tokens as a portal would.
type signer struct{ options *securetoken.Options }

func newSigner(salt int) (*signer, error) {
	o := securetoken.NewOptions()
	o.CheckIP, o.SaltLength = false, salt
	var err error
	o.Secret, err = config.ParseSecret("env:BENCH_SECRET")
	return &signer{o}, err
}

func (s *signer) sign(v *viewer) error {
	var err error
	now := time.Now()
	v.token, err = securetoken.Sign(s.options, securetoken.Ticket{
		Stream: v.stream, User: v.user, Start: now.Add(-time.Hour), End: now.Add(12 * time.Hour),
	})
	return err
}

// ask is the question about a viewer's file below his stream, as nginx puts it.
func (v *viewer) ask(file string) []byte {
	return fmt.Appendf(nil, "GET /v1/nginx/web1 HTTP/1.1\r\nHost: usher\r\nX-Original-URI: /hls/%s/%s\r\nX-Original-Method: GET\r\n"+
		"X-Real-IP: %s\r\nUser-Agent: %s\r\n\r\n", v.stream, file, v.ip, agent)
}
