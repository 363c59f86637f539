package securelink

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"usher.internal/libs/match"
	"usher.internal/libs/token"
)

// Sign makes a link that a Verifier with the same options accepts.
func Sign(o *Options, t token.Ticket) (token.Signed, error) {
	v, err := New(o)
	if err != nil {
		return token.Signed{}, err
	}
	switch {
	case t.Device != "" || t.Sessions != 0 || t.Salt != "" || len(t.Key) > 0:
		return token.Signed{}, errors.New("a link has no device, no number of sessions, no salt and no private key")
	case t.User != "" && o.User == "":
		return token.Signed{}, errors.New("the check's links name no user: see its option user")
	case t.Path == "":
		return token.Signed{}, errors.New("a link is made for a path, which is missing")
	}
	if o.Form == FormSecret {
		return v.signOld(t)
	}
	query := t.Query
	if t.User != "" {
		query = join(query, o.User+"="+url.QueryEscape(t.User))
	}
	expires := ""
	if o.Expires != "" {
		expires = strconv.FormatInt(t.End.Unix(), 10)
	}
	q := token.Question{Stream: t.Stream, Path: t.Path, Query: query, Host: t.Host, IP: t.IP, Now: t.Start}
	signed, err := v.sign(&q, expires)
	if err != nil {
		return token.Signed{}, err
	}
	// What is handed out was judged by the same code that will judge it.
	q.Path, q.Query = signed.Path, signed.Query
	id, err := v.Verify(context.Background(), &q)
	if err == nil && id.User != t.User {
		err = errors.New("its user would be read as another")
	}
	if err != nil {
		return token.Signed{}, fmt.Errorf("the link would not be accepted: %w", err)
	}
	return signed, nil
}

func (v *Verifier) sign(q *token.Question, expires string) (token.Signed, error) {
	path, ok := match.CleanPath(q.Path)
	if !ok {
		return token.Signed{}, errors.New("the path cannot be read: want one such as /hls/news/index.m3u8")
	}
	vals := v.values(&link{expires: expires, path: path, whole: path}, q)
	if d := v.missing(&vals); d != nil {
		return token.Signed{}, d
	}
	text, ok := v.template.fill(nil, &vals)
	if !ok {
		return token.Signed{}, errors.New("path or arguments hold what no link may hold")
	}
	sum := md5.Sum(text)
	hash := base64.RawURLEncoding.EncodeToString(sum[:])
	if v.layout != nil {
		return token.Signed{Token: hash, Path: v.layout.write(hash, expires, q.Path), Query: q.Query}, nil
	}
	query := join(q.Query, v.opts.MD5+"="+hash)
	if v.opts.Expires != "" {
		query = join(query, v.opts.Expires+"="+expires)
	}
	return token.Signed{Token: hash, Path: q.Path, Query: query}, nil
}

// signOld makes /PREFIX/HASH/link of /PREFIX/link.
func (v *Verifier) signOld(t token.Ticket) (token.Signed, error) {
	prefix, rest, ok := strings.Cut(strings.TrimPrefix(t.Path, "/"), "/")
	if !ok || rest == "" {
		return token.Signed{}, errors.New("the path is /PREFIX/link: the prefix of nginx's location, and what is signed")
	}
	if t.IP.IsValid() {
		return token.Signed{}, errors.New("links of " + FormSecret + " know no address")
	}
	sum := md5.Sum([]byte(rest + v.secret))
	hash := hex.EncodeToString(sum[:])
	return token.Signed{Token: hash, Path: "/" + prefix + "/" + hash + "/" + rest, Query: t.Query}, nil
}

// join adds an argument to a raw query.
func join(query, argument string) string {
	if query == "" {
		return argument
	}
	return query + "&" + argument
}

// Inspect takes a link of the usual argument names apart; o is nil where no check is known.
func Inspect(o *Options, rawURL string) ([]token.Part, bool) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, false
	}
	candidates := []*Options{o}
	if o == nil {
		usual, ministra := NewOptions(), NewOptions()
		ministra.MD5, ministra.Expires = "st", "e"
		candidates = []*Options{usual, ministra, {Form: FormSecret}}
	}
	for _, o := range candidates {
		if parts, ok := inspect(o, u); ok {
			return parts, true
		}
	}
	return nil, false
}

func inspect(o *Options, u *url.URL) ([]token.Part, bool) {
	if o.Form == FormSecret {
		hash, rest, ok := old(u.EscapedPath())
		return []token.Part{{Name: "hash (MD5)", Value: hex.EncodeToString(hash[:])}, {Name: "link", Value: rest}}, ok
	}
	v := &Verifier{opts: *o, md5: strings.ToLower(o.MD5), expires: strings.ToLower(o.Expires)}
	if o.Path != "" {
		v.layout, _ = parseLayout(o.Path)
	}
	l, err := v.read(&token.Question{Path: u.EscapedPath(), Query: u.RawQuery})
	if err != nil {
		return nil, false
	}
	parts := []token.Part{{Name: "hash (MD5)", Value: l.text}}
	if l.expires != "" {
		end, _ := strconv.ParseInt(l.expires, 10, 64)
		parts = append(parts, token.Part{Name: "end", Value: l.expires, Time: time.Unix(end, 0)})
	}
	if l.path != "" {
		parts = append(parts, token.Part{Name: "path", Value: l.path})
	}
	return parts, true
}
