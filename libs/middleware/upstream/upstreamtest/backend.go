package upstreamtest

import (
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// rawBackend answers every request with the same bytes and keeps what it was sent,
// byte for byte: net/http's server would hide the spelling of headers.
type rawBackend struct {
	address  string
	heads    chan string // each with its body
	requests atomic.Int32
}

// newRawBackend hands each connection to answer once a request was read.
func newRawBackend(t testing.TB, answer func(net.Conn)) *rawBackend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &rawBackend{address: l.Addr().String(), heads: make(chan string, 1024)}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				for {
					request, err := readRequest(c)
					if err != nil {
						return
					}
					b.requests.Add(1)
					b.heads <- request
					answer(c)
				}
			}()
		}
	}()
	return b
}

func readRequest(c net.Conn) (string, error) {
	var text strings.Builder
	one := make([]byte, 1)
	for !strings.HasSuffix(text.String(), "\r\n\r\n") {
		if _, err := c.Read(one); err != nil {
			return "", err
		}
		text.Write(one)
	}
	_, length, ok := strings.Cut(text.String(), "\r\nContent-Length: ")
	if !ok {
		return text.String(), nil
	}
	length, _, _ = strings.Cut(length, "\r\n")
	n, err := strconv.ParseInt(length, 10, 64)
	if err == nil {
		_, err = io.CopyN(&text, c, n)
	}
	return text.String(), err
}

// say sends the text.
func say(text string) func(net.Conn) {
	return func(c net.Conn) { _, _ = io.WriteString(c, text) }
}

// hold sends the text and then nothing, until the other side closes.
func hold(text string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = io.WriteString(c, text)
		_, _ = c.Read(make([]byte, 1))
	}
}

// flood sends first and then next for ever.
func flood(first, next string) func(net.Conn) {
	return func(c net.Conn) {
		_, err := io.WriteString(c, first)
		for err == nil {
			_, err = io.WriteString(c, next)
		}
	}
}

// drip sends first and then next, slowly.
func drip(first, next string) func(net.Conn) {
	return func(c net.Conn) {
		_, err := io.WriteString(c, first)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for err == nil {
			<-tick.C
			_, err = io.WriteString(c, next)
		}
	}
}
