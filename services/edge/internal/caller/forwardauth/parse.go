package forwardauth

import (
	"net/http"
	"net/netip"
	"strings"

	"usher.internal/libs/access"
	"usher.internal/libs/match"
	"usher.internal/services/edge/internal/caller"
)

// Parse implements caller.Adapter. The body and the edge's own URL and query are
// not looked at: the proxy writes the viewer's URL into a header.
func (a Adapter) Parse(r *http.Request, n *caller.Node, peer netip.Addr, q *access.Request) error {
	t := target{r: r}
	err := a.locate(&t)
	if err != nil {
		return err
	}
	if err = a.checkMethod(r.Header); err != nil {
		return err
	}
	q.Path, q.Query, _ = strings.Cut(t.uri, "?")
	if err = caller.CheckPath(q.Path); err != nil {
		return err
	}
	if err = caller.CheckQuery(q.Query); err != nil {
		return err
	}
	var ok bool
	if q.Stream, ok = n.Stream(q.Path); !ok {
		return caller.Badf("no stream's name can be read out of the path")
	}
	q.Archive = match.Archive(q.Path)
	if q.IP, err = n.ClientIP(r.Header, peer, a.ip); err != nil {
		return err
	}
	v := caller.Viewer{Path: q.Path, Query: q.Query, Header: r.Header}
	if q.Token, err = caller.FindToken(n.Token, &v); err != nil {
		return err
	}
	if n.Device != nil {
		if q.Device, err = n.Device.Find("the device", &v, access.MaxName); err != nil {
			return err
		}
	}
	labels(r.Header, t.host, q)
	return nil
}

// checkMethod lets only methods through that play. A viewer's seat must not let him PUT
// or DELETE where the server behind the proxy would allow it.
func (a Adapter) checkMethod(h http.Header) error {
	method, err := caller.One(h, a.method)
	if err != nil {
		return err
	}
	switch method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions:
		return nil
	}
	return caller.Badf("%s is not a method that plays", a.method)
}

// labels reads the viewer's own headers, which the proxies pass on as they came. They
// are matched and shown, never trusted. Browsers that hide the Referer send Origin.
func labels(h http.Header, host string, q *access.Request) {
	q.UserAgent = access.Clean(h.Get("User-Agent"), access.MaxUserAgent)
	referer := h.Get("Referer")
	if referer == "" {
		referer = h.Get("Origin")
	}
	q.Referer = access.Clean(referer, access.MaxReferer)
	q.Host = caller.Host(host)
}
