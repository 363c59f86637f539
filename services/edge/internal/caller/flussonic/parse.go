package flussonic

import (
	"net/http"
	"net/netip"
	"net/url"

	"usher.internal/libs/access"
	"usher.internal/services/edge/internal/caller"
)

// Hooks below the node's address, for those who want to say it themselves:
// /v1/flussonic/<node>/publish. Without one a POST publishes and a GET plays.
const (
	hookPlay    = "play"
	hookPublish = "publish"
)

// Parse implements caller.Adapter.
func (Adapter) Parse(r *http.Request, n *caller.Node, _ netip.Addr, q *access.Request) error {
	f, err := read(r)
	if err != nil {
		return err
	}
	if q.Action, err = action(r); err != nil {
		return err
	}
	if q.Stream, err = f.name("name", access.MaxName); err != nil {
		return err
	}
	if q.Stream == "" {
		return caller.Badf("name is missing")
	}
	q.Channel = q.Stream
	if q.CallerSession, err = f.name("session_id", access.MaxName); err != nil {
		return err
	}
	if q.IP, err = caller.ParseIP("ip", f["ip"]); err != nil {
		return err
	}
	q.Update = f["request_type"] == "update_session"
	if q.Archive, err = f.archive(); err != nil {
		return err
	}
	if err := credentials(f, n, q); err != nil {
		return err
	}
	q.UserAgent = f.label("user_agent", access.MaxUserAgent)
	q.Referer = f.label("referer", access.MaxReferer)
	q.Host = caller.Host(f["host"])
	q.Protocol = f.label("proto", access.MaxName)
	if q.Protocol == "" {
		q.Protocol = f.label("type", access.MaxName)
	}
	return nil
}

// action tells playing from publishing.
func action(r *http.Request) (access.Action, error) {
	switch below := caller.Below(r, Kind); {
	case below == hookPublish:
		return access.Publish, nil
	case below != "" && below != hookPlay:
		return "", caller.Badf("no hook of flussonic is called like that; there are play, publish and events")
	case below == "" && r.Method == http.MethodPost:
		return access.Publish, nil
	case r.Method == http.MethodPost, r.Method == http.MethodGet:
		return access.Play, nil
	}
	return "", caller.Badf("a question is a GET or a POST")
}

// credentials reads the token, as Flussonic found it or where the node says that it stands
// in the viewer's query, and the device.
func credentials(f fields, n *caller.Node, q *access.Request) (err error) {
	if q.Token, err = f.name("token", access.MaxToken); err != nil {
		return err
	}
	q.Query = f["qs"]
	if q.Query == "" && q.Token != "" {
		// Middlewares are asked with the viewer's query, which older versions do not pass on.
		q.Query = "token=" + url.QueryEscape(q.Token)
	}
	if err = caller.CheckQuery(q.Query); err != nil {
		return err
	}
	v := caller.Viewer{Query: q.Query}
	if q.Token == "" {
		if q.Token, err = caller.FindToken(n.Token, &v); err != nil {
			return err
		}
	}
	if n.Device != nil {
		q.Device, err = n.Device.Find("the device", &v, access.MaxName)
	}
	return err
}
