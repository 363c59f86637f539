package vectors_test

import (
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// wicked is a backend by its bytes: it keeps what it was sent, byte for byte, and answers as it
// is told, which need not be HTTP.
type wicked struct {
	address string
	ended   chan struct{}

	mu     sync.Mutex // guards all below
	answer func(w *wicked, c net.Conn)
	heads  []string // each with its body
}

func newWicked(t *testing.T) *wicked {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w := &wicked{address: l.Addr().String(), ended: make(chan struct{}), answer: kind}
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait)
	t.Cleanup(func() { close(w.ended); _ = l.Close() })
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { w.serve(c) })
		}
	})
	return w
}

func (w *wicked) serve(c net.Conn) {
	done := make(chan struct{})
	defer close(done)
	defer func() { _ = c.Close() }()
	go func() {
		select {
		case <-w.ended:
		case <-done:
		}
		_ = c.Close()
	}()
	for {
		head, err := readQuestion(c)
		if err != nil {
			return
		}
		w.mu.Lock()
		answer := w.answer
		w.heads = append(w.heads, head)
		w.mu.Unlock()
		answer(w, c)
	}
}

func (w *wicked) turn(answer func(*wicked, net.Conn)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = answer
}

// sent are the questions since the last call, byte for byte.
func (w *wicked) sent() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	heads := w.heads
	w.heads = nil
	return heads
}

// readQuestion reads a head and the body that its Content-Length names.
func readQuestion(c io.Reader) (string, error) {
	var text strings.Builder
	one := make([]byte, 1)
	for !strings.HasSuffix(text.String(), "\r\n\r\n") {
		if _, err := c.Read(one); err != nil {
			return "", err
		}
		text.Write(one)
	}
	_, after, ok := strings.Cut(text.String(), "\r\nContent-Length: ")
	if !ok {
		return text.String(), nil
	}
	length, _, _ := strings.Cut(after, "\r\n")
	n, err := strconv.ParseInt(length, 10, 64)
	if err != nil {
		return "", err
	}
	_, err = io.CopyN(&text, c, n)
	return text.String(), err
}

const everybody = "HTTP/1.1 200 OK\r\nX-UserId: everybody\r\nX-Max-Sessions: 1000\r\nX-AuthDuration: 36000\r\n"

// kind is how a backend answers that knows the viewer: in every kind's words.
func kind(_ *wicked, c net.Conn) {
	const body = `{"error":0,"status":"OK","results":"7"}`
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-UserId: u7\r\nContent-Type: application/json\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body)
}

// repeat sends first and then next for ever, with pause between.
func repeat(first, next string, pause time.Duration) func(*wicked, net.Conn) {
	return func(w *wicked, c net.Conn) {
		_, err := io.WriteString(c, first)
		for err == nil {
			select {
			case <-w.ended:
				return
			case <-time.After(pause):
			}
			_, err = io.WriteString(c, next)
		}
	}
}

// once sends the text and ends the connection; the other half of it stays open.
func once(text string) func(*wicked, net.Conn) {
	return func(_ *wicked, c net.Conn) {
		_, _ = io.WriteString(c, text)
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	}
}

// megabytes sends a hundred of them.
func megabytes(head string) func(*wicked, net.Conn) {
	return func(_ *wicked, c net.Conn) {
		_, err := io.WriteString(c, head+"Content-Length: 104857600\r\n\r\n")
		block := strings.Repeat("{", 1<<16)
		for sent := 0; err == nil && sent < 100<<20; sent += len(block) {
			_, err = io.WriteString(c, block)
		}
	}
}

const signIn = "<!DOCTYPE html><html><body>Welcome! Please sign in to use this network.</body></html>"

// captive answers everything with the same page, whose status is 200.
func captive(w *wicked, c net.Conn) {
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: "+strconv.Itoa(len(signIn))+"\r\n\r\n"+signIn)
}

// login sends everybody to a page that lets everybody in.
func login(w *wicked, c net.Conn) {
	w.mu.Lock()
	last := w.heads[len(w.heads)-1]
	w.mu.Unlock()
	if strings.Contains(last, " /login") {
		kind(w, c)
		return
	}
	_, _ = io.WriteString(c, "HTTP/1.1 302 Found\r\nX-UserId: everybody\r\nLocation: http://"+w.address+"/login\r\nContent-Length: 0\r\n\r\n")
}
