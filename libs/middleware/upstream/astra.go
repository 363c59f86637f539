package upstream

import (
	nethttp "net/http"

	"usher.internal/libs/access"
)

// astraAgent is what the author of Astra shows for its own requests; backends may
// have come to look for it (spec astra §9 U19).
const astraAgent = "Astra"

// astraNames are the headers of Astra's question, in its own spelling.
var astraNames = [...]string{"X-Session-ID", "X-Channel-ID", "X-Real-IP", "X-Real-Path", "X-Real-UA", "X-Real-Host"}

// AgentHeader names Astra and says nothing else.
func AgentHeader() nethttp.Header {
	return nethttp.Header{"User-Agent": {astraAgent}}
}

// AstraHeader is the header of the question as Astra asks it (spec astra §1.2). A
// caller without ids of its own gives the session key and the stream.
func AstraHeader(req *access.Request) nethttp.Header {
	session := req.CallerSession
	if session == "" {
		session = req.Key.String()
	}
	h := make(nethttp.Header, len(astraNames)+3)
	h["User-Agent"] = []string{astraAgent}
	for i, v := range [...]string{session, Channel(req), Address(req), req.Path, req.UserAgent, req.Host} {
		// The edge cleans them; a control character that came through would make
		// the transport fail, and a viewer must not be able to fake an outage.
		h[astraNames[i]] = []string{access.Clean(v, access.MaxPath)}
	}
	return h
}

// Channel is the caller's own id of what is played, else the stream.
func Channel(req *access.Request) string {
	if req.Channel != "" {
		return req.Channel
	}
	return req.Stream
}

// Address is the viewer's address as text, "" if there is none.
func Address(req *access.Request) string {
	if !req.IP.IsValid() {
		return ""
	}
	return req.IP.String()
}
