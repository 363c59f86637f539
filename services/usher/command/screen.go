package command

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
)

// screen writes log lines for a person: time, level if it matters, message, attributes.
type screen struct {
	level slog.Leveler
	attrs []slog.Attr
	out   *lockedWriter
}

// lockedWriter keeps lines of several loggers apart.
type lockedWriter struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

func newScreen(w io.Writer, level slog.Leveler) *screen {
	return &screen{level: level, out: &lockedWriter{w: w}}
}

// Enabled implements slog.Handler.
func (s *screen) Enabled(_ context.Context, l slog.Level) bool { return l >= s.level.Level() }

// Handle implements slog.Handler.
func (s *screen) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	b.WriteString(r.Time.Format("15:04:05 "))
	if r.Level > slog.LevelInfo {
		b.WriteString(strings.ToUpper(r.Level.String()) + " ")
	}
	b.WriteString(r.Message)
	for _, a := range s.attrs {
		writeAttr(&b, a)
	}
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, a)
		return true
	})
	b.WriteByte('\n')
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	_, err := s.out.w.Write(b.Bytes())
	return err
}

func writeAttr(b *bytes.Buffer, a slog.Attr) {
	text := a.Value.Resolve().String()
	if a.Key == "problem" {
		fmt.Fprintf(b, ": %s", text) // file:line:column: …, as compilers write it
		return
	}
	if strings.ContainsAny(text, " \"=") {
		text = fmt.Sprintf("%q", text)
	}
	fmt.Fprintf(b, "  %s=%s", a.Key, text)
}

// WithAttrs implements slog.Handler.
func (s *screen) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *s
	next.attrs = append(next.attrs[:len(next.attrs):len(next.attrs)], attrs...)
	return &next
}

// WithGroup implements slog.Handler. Nothing here logs in groups.
func (s *screen) WithGroup(string) slog.Handler { return s }

// isTerminal says whether a person reads the file.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// shellWord is the text as one word for a POSIX shell.
func shellWord(text string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._/-+:@", r)
	}
	if text != "" && strings.IndexFunc(text, func(r rune) bool { return !plain(r) }) < 0 {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
