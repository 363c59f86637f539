package astra

import (
	"net/http"
	"net/netip"
	"strings"

	"usher.internal/libs/access"
	"usher.internal/services/edge/internal/caller"
)

// Headers that Astra and Alta send, in canonical spelling. Nothing else of a request is read
// but its query (and a place that the node names for its token).
const (
	headerSession = "X-Session-Id"
	headerChannel = "X-Channel-Id"
	headerIP      = "X-Real-Ip"
	headerPath    = "X-Real-Path"
	headerUA      = "X-Real-Ua"
	headerHost    = "X-Real-Host"
	headerOrigin  = "X-Real-Origin" // Alta: scheme, host and port
)

// Parse implements caller.Adapter.
func (Adapter) Parse(r *http.Request, n *caller.Node, peer netip.Addr, q *access.Request) error {
	h := r.Header
	var err error
	if q.CallerSession, err = caller.Need(h, headerSession, access.MaxName); err != nil {
		return err
	}
	if q.IP, err = n.ClientIP(h, peer, headerIP); err != nil {
		return err
	}
	if err = channel(h, n, q); err != nil {
		return err
	}
	q.Query = r.URL.RawQuery
	if err = caller.CheckQuery(q.Query); err != nil {
		return err
	}
	v := caller.Viewer{Path: q.Path, Query: q.Query, Header: h}
	if q.Token, err = caller.FindToken(n.Token, &v); err != nil {
		return err
	}
	if n.Device != nil {
		if q.Device, err = n.Device.Find("the device", &v, access.MaxName); err != nil {
			return err
		}
	}
	return labels(h, q)
}

// channel reads path and stream: the stream is the channel's id, else it is
// read out of the path, as Alta sends none.
func channel(h http.Header, n *caller.Node, q *access.Request) error {
	var err error
	if q.Path, err = caller.One(h, headerPath); err != nil {
		return err
	}
	if q.Path != "" {
		if err = caller.CheckPath(q.Path); err != nil {
			return err
		}
	}
	if q.Channel, err = caller.One(h, headerChannel); err != nil {
		return err
	}
	if q.Channel != "" {
		q.Stream, err = caller.Strict("X-Channel-ID", q.Channel, access.MaxName)
		return err
	}
	if q.Path == "" {
		return caller.Badf("X-Channel-ID and X-Real-Path are both missing")
	}
	var ok bool
	if q.Stream, ok = n.Stream(q.Path); !ok {
		return caller.Badf("no stream's name can be read out of X-Real-Path, and X-Channel-ID is missing")
	}
	return nil
}

// labels reads what is only shown, matched or passed on.
func labels(h http.Header, q *access.Request) error {
	ua, err := caller.One(h, headerUA)
	if err != nil {
		return err
	}
	host, err := caller.One(h, headerHost)
	if err != nil {
		return err
	}
	if host == "" {
		if host, err = caller.One(h, headerOrigin); err != nil {
			return err
		}
		if _, after, ok := strings.Cut(host, "://"); ok {
			host = after
		}
	}
	q.UserAgent = access.Clean(ua, access.MaxUserAgent)
	q.Host = caller.Host(host)
	return nil
}
