package subscriber

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"usher.internal/libs/config"
)

// maxRecord bounds one line of a file, also where a quote is never closed.
const maxRecord = 1 << 20

// Columns that a file may have, by the names in its first line. user is required.
var columns = []string{"user", "name", "token", "login", "password", "packages", "sessions", "until", "ip", "blocked", "comment"}

// Row is one line of a file of subscribers, checked.
type Row struct {
	// Line in the file, from 1, for messages.
	Line              int
	User, Name, Token string
	Login, Password   string // Password in clear, until it is hashed
	Packages          []string
	Sessions          int
	Until             time.Time
	Networks          []netip.Prefix
	Blocked           bool
	Comment           string
}

// BadLine is a line that cannot be used.
type BadLine struct {
	Line int
	Text string
}

// Error implements error.
func (b *BadLine) Error() string { return fmt.Sprintf("line %d: %s", b.Line, b.Text) }

// Reader reads subscribers out of CSV, one line at a time.
type Reader struct {
	csv     *csv.Reader
	source  *bounded
	columns []string
}

// NewReader reads the first line, which names the columns. Fields are separated by commas, or
// by semicolons where the first line holds no comma.
func NewReader(r io.Reader) (*Reader, error) {
	source := &bounded{r: r, left: maxRecord}
	buffer := bufio.NewReader(source)
	if mark, err := buffer.Peek(3); err == nil && string(mark) == "\xef\xbb\xbf" {
		_, _ = buffer.Discard(3) // it was peeked
	}
	head, err := buffer.Peek(4096)
	if len(head) == 0 {
		return nil, fmt.Errorf("reading the first line, which names the columns: %w", cmpErr(err, io.ErrUnexpectedEOF))
	}
	first, _, _ := strings.Cut(string(head), "\n")
	c := csv.NewReader(buffer)
	c.TrimLeadingSpace, c.ReuseRecord = true, true
	if !strings.Contains(first, ",") && strings.Contains(first, ";") {
		c.Comma = ';'
	}
	names, err := c.Read()
	if err != nil {
		return nil, fmt.Errorf("reading the first line, which names the columns: %w", err)
	}
	x := &Reader{csv: c, source: source}
	for _, name := range names {
		name = strings.ToLower(strings.TrimSpace(name))
		switch {
		case !slices.Contains(columns, name):
			text := fmt.Sprintf("the first line names a column %q; there are %s", name, strings.Join(columns, ", "))
			if near := config.Nearest(name, columns); near != "" {
				text += fmt.Sprintf("; did you mean %q?", near)
			}
			return nil, errors.New(text)
		case x.Has(name):
			return nil, fmt.Errorf("the first line names column %q twice", name)
		}
		x.columns = append(x.columns, name)
	}
	if !x.Has("user") {
		return nil, errors.New("the first line names no column user")
	}
	return x, nil
}

func cmpErr(err, otherwise error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return otherwise
	}
	return err
}

// Has says whether the file has the column.
func (x *Reader) Has(column string) bool { return slices.Contains(x.columns, column) }

// Read gives the next line. The error is io.EOF at the end, a *BadLine for a line that
// cannot be used (the next one may be read), or the source's. It holds no token and no password.
func (x *Reader) Read() (*Row, error) {
	x.source.left = maxRecord
	fields, err := x.csv.Read()
	line, _ := x.position()
	var broken *csv.ParseError
	switch {
	case errors.As(err, &broken):
		return nil, &BadLine{broken.StartLine, broken.Err.Error()}
	case err != nil:
		return nil, err
	}
	row := &Row{Line: line}
	for i, name := range x.columns {
		if err := row.set(name, fields[i]); err != nil {
			return nil, &BadLine{line, name + ": " + err.Error()}
		}
	}
	return row, nil
}

// position is the line of the last record; before one there is none, and FieldPos panics.
func (x *Reader) position() (line, column int) {
	defer func() { _ = recover() }() // then the error says the line
	return x.csv.FieldPos(0)
}

func (r *Row) set(column, text string) (err error) {
	if column != "password" && column != "token" {
		text = strings.TrimSpace(text)
	}
	if strict(text, nil) != nil {
		return errors.New("holds control characters or is not UTF-8")
	}
	switch column {
	case "user":
		r.User, err = text, CheckUser(text)
	case "name":
		r.Name, err = text, shorter(text, 256)
	case "token":
		r.Token, err = text, CheckToken(text)
	case "login":
		if r.Login = text; text != "" {
			err = CheckLogin(text)
		}
	case "password":
		r.Password, err = text, shorter(text, MaxPassword)
	case "packages":
		r.Packages = SplitList(text)
	case "sessions":
		r.Sessions, err = sessions(text)
	case "until":
		r.Until, err = ParseUntil(text)
	case "ip":
		r.Networks, err = ParseNetworks(text)
	case "blocked":
		r.Blocked, err = yes(text)
	case "comment":
		r.Comment, err = text, shorter(text, 2048)
	}
	return err
}

// bounded is a source of which only so much may be read at a time.
type bounded struct {
	r    io.Reader
	left int
}

var errLong = fmt.Errorf("a line is longer than %d bytes; is a quote not closed?", maxRecord)

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errLong
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func sessions(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 1_000_000 {
		return 0, errors.New("want a number up to 1000000, 0 for the rule's limit")
	}
	return n, nil
}

func yes(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "yes", "true", "1":
		return true, nil
	case "no", "false", "0", "":
		return false, nil
	}
	return false, errors.New("want yes or no")
}
