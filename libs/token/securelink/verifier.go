package securelink

import (
	"context"
	"crypto/md5" // the scheme's own hash: see README.md for its limits
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/token"
)

// Verifier checks links under one check's options.
type Verifier struct {
	secret   string
	opts     Options
	template template
	layout   layout // nil where hash and time stand in the query
	// Names of arguments in lower case.
	md5, expires, userArg string
}

var _ token.Verifier = (*Verifier)(nil)

// New resolves the secret. The error names the reference, never the secret.
func New(o *Options) (*Verifier, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	secret, err := o.Secret.Resolve()
	if err != nil {
		return nil, fmt.Errorf("secure_link secret: %w", err)
	}
	v := &Verifier{secret: secret, opts: *o, md5: strings.ToLower(o.MD5), expires: strings.ToLower(o.Expires), userArg: strings.ToLower(o.User)}
	if o.Form == FormSecret {
		return v, nil
	}
	if v.template, err = parseTemplate(o.Hash); err != nil {
		return nil, fmt.Errorf("hash: %w", err)
	}
	if o.Path != "" {
		v.layout, _ = parseLayout(o.Path) // Validate has read it
	}
	return v, nil
}

// Verify implements token.Verifier. A question without the link's arguments is
// token.ErrNotMine, one whose hash does not fit is denied as bad_token; the end is judged
// only after the hash, so that expired is always true.
func (v *Verifier) Verify(_ context.Context, q *token.Question) (token.Identity, error) {
	if v.opts.Form == FormSecret {
		return v.verifyOld(q)
	}
	l, err := v.read(q)
	if err != nil {
		return token.Identity{}, err
	}
	vals := v.values(&l, q)
	if d := v.missing(&vals); d != nil {
		return token.Identity{}, d
	}
	if !v.fits(&l, &vals) {
		return token.Identity{}, bad(v.diagnose(&l, &vals, q))
	}
	id := token.Identity{Bearer: l.text}
	if id.User, err = v.user(q); err != nil {
		return token.Identity{}, err
	}
	if v.opts.Expires == "" {
		return id, nil
	}
	end, _ := strconv.ParseInt(l.expires, 10, 64) // ten digits
	past := end + int64(v.opts.ClockSkew.Duration()/time.Second)
	if late := q.Now.Unix() - end; q.Now.Unix() > past && (v.opts.Recheck || !q.Running) {
		return token.Identity{}, &token.Denial{
			Reason: access.Expired, Text: "the link ended " + (time.Duration(late) * time.Second).String() + " ago",
		}
	}
	if v.opts.Recheck {
		id.Expires = time.Unix(past+1, 0)
	}
	return id, nil
}

// values are what the question puts into the template.
func (v *Verifier) values(l *link, q *token.Question) values {
	vals := values{
		secret: v.secret, expires: l.expires, path: v.cut(l.path), whole: v.cut(l.whole),
		host: hostName(q.Host), agent: q.UserAgent, stream: q.Stream, query: q.Query,
	}
	if q.IP.IsValid() {
		vals.ip = addressText(q.IP)
	}
	return vals
}

// missing denies where the caller did not send what the template is about: an empty text in its
// place could make one link of two.
func (v *Verifier) missing(vals *values) *token.Denial {
	for _, p := range v.template {
		text, name := "-", ""
		switch p.kind {
		case partPath, partWhole:
			text, name = vals.path, "path"
		case partIP:
			text, name = vals.ip, "address of the viewer"
		case partStream:
			text, name = vals.stream, "stream"
		case partHost:
			text, name = vals.host, "host"
		}
		if text == "" {
			return bad("the caller gave no " + name + " that the link could be bound to")
		}
	}
	return nil
}

// user is the argument that names him, which the hash has covered.
func (v *Verifier) user(q *token.Question) (string, error) {
	name, err := url.QueryUnescape(argument(q.Query, v.userArg).value)
	if err != nil || access.Clean(name, access.MaxName) != name {
		return "", bad("the link's user is too long, or holds characters that no user may have")
	}
	return name, nil
}

// cut takes the first ending off that fits.
func (v *Verifier) cut(path string) string {
	for _, ending := range v.opts.Cut {
		if rest, ok := strings.CutSuffix(path, ending); ok {
			return rest
		}
	}
	return path
}

func (v *Verifier) fits(l *link, vals *values) bool {
	var space [512]byte
	text, ok := v.template.fill(space[:0], vals)
	if !ok {
		return false
	}
	sum := md5.Sum(text)
	return subtle.ConstantTimeCompare(sum[:], l.hash[:]) == 1
}

// diagnose says why nothing fitted. It only claims what the secret proves: a hash that would
// fit over something else.
func (v *Verifier) diagnose(l *link, vals *values, q *token.Question) string {
	try := func(change func(*values)) bool {
		other := *vals
		change(&other)
		return v.fits(l, &other)
	}
	folder := func(p string) string { return p[:max(strings.LastIndexByte(p, '/'), 0)] }
	switch {
	case len(v.opts.Cut) > 0 && try(func(o *values) { o.path, o.whole = l.path, l.whole }):
		return "the hash fits the path before cut takes its ending off"
	case try(func(o *values) { o.path, o.whole = folder(o.path), folder(o.whole) }):
		return "the hash fits the path without its last element: see cut"
	case try(func(o *values) { o.path, o.whole = q.Path, q.Path }):
		return "the hash fits the path as it was sent: links are signed over the decoded path"
	case try(func(o *values) { o.path, o.whole = "/"+o.stream, "/"+o.stream }):
		return "the hash fits the stream in place of the path"
	case try(func(o *values) { o.ip = "" }):
		return "the hash fits without an address: see hash"
	}
	return "the hash does not fit this path, viewer and secret"
}

// verifyOld checks the form of secure_link_secret. nginx hashes the rest of the address with
// its query; one that was signed without it stays good when a player adds one.
func (v *Verifier) verifyOld(q *token.Question) (token.Identity, error) {
	hash, rest, ok := old(q.Path)
	if !ok {
		return token.Identity{}, token.ErrNotMine
	}
	for _, text := range [...]string{rest + "?" + q.Query, rest} {
		sum := md5.Sum([]byte(text + v.secret))
		if subtle.ConstantTimeCompare(sum[:], hash[:]) == 1 {
			return token.Identity{Bearer: hex.EncodeToString(hash[:])}, nil
		}
	}
	return token.Identity{}, bad("the hash does not fit this link and secret")
}

// addressText is the address as it stands in a hash: canonical, IPv4 where it was in IPv6.
func addressText(ip netip.Addr) string { return ip.Unmap().WithZone("").String() }

// hostName is nginx's $host: lower case, without port.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
		if strings.Contains(name, ":") {
			host = "[" + name + "]"
		}
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func bad(text string) *token.Denial { return &token.Denial{Reason: access.BadToken, Text: text} }
