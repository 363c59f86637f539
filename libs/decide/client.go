package decide

import (
	"context"
	"fmt"
	"slices"
	"time"

	"usher.internal/libs/access"
	"usher.internal/libs/match"
	"usher.internal/libs/policy"
)

// client is a machine of the policy's clients, made ready.
type client struct {
	*policy.Client
	lists lists
}

func (e *Engine) compileClients() {
	for _, c := range e.snapshot.Clients {
		e.clients = append(e.clients, client{c, e.lists(c.Lists)})
		e.clientTokens = e.clientTokens || len(c.Tokens) > 0
	}
}

// fits says whether the question is the client's: all that it is known by must hold.
func (c *client) fits(v *viewer, stream string) bool {
	if len(c.Tokens) > 0 && !c.lists.hit("token", v) {
		return false
	}
	if (len(c.IPs) > 0 || !c.Network.Empty()) && !c.lists.hit("ip", v) && !c.lists.hit("network", v) {
		return false
	}
	if len(c.UA) > 0 && !c.lists.hit("ua", v) {
		return false
	}
	return len(c.Streams) == 0 || slices.ContainsFunc(c.Streams, func(g *match.Glob) bool { return g.Match(stream) })
}

// client lets machines in that are no subscribers, without any check: counted as a user of a
// realm of their own, up to their own cap.
func (j *judgement) client(context.Context) bool {
	if len(j.clients) == 0 {
		return false
	}
	v := &viewer{ip: j.req.IP, ua: j.req.UserAgent}
	if j.clientTokens {
		v.token = j.deps.Keyer.Fingerprint(j.req.Token)
	}
	var ended *client
	for i := range j.clients {
		c := &j.clients[i]
		switch {
		case !c.fits(v, j.req.Stream):
		case !c.Until.IsZero() && !j.deps.Now().Before(c.Until):
			ended = c
		default:
			j.welcomeClient(c)
			return true
		}
	}
	if ended == nil {
		return false
	}
	text := fmt.Sprintf("client %s: its time in the policy was over at %s", ended.Name, ended.Until.UTC().Format(time.RFC3339))
	j.trail.add("client "+ended.Name, no, text)
	j.verdict.Realm, j.verdict.User = ended.Realm(), ended.Name
	j.verdict.deny(access.ClientEnd, text, "")
	return true
}

// welcomeClient counts the client's sessions by its own cap alone. Each is a device of its own:
// a partner's head-end takes many streams at once, and none of them is zapped by the next.
func (j *judgement) welcomeClient(c *client) {
	text := string(c.Kind) + " " + c.Name
	j.trail.add("client "+c.Name, yes, text)
	j.allow(&j.verdict, j.req, access.Client, text, welcome{
		realm: c.Realm(), user: c.Name, name: c.Name, expires: c.Until, unlimited: true,
		device: access.Clean(c.Name+" "+j.req.Key.String(), access.MaxName),
	})
	if c.Sessions > 0 {
		j.verdict.Limit, j.verdict.Mode = c.Sessions, access.RefuseNew
	}
}
