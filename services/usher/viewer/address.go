package viewer

import (
	"net/url"
	"strconv"
	"strings"

	"usher.internal/libs/policy"
)

// Path is a path out of which the node reads the stream's name.
func Path(n *policy.Node, stream string) string {
	stream = (&url.URL{Path: stream}).EscapedPath()
	if n.URL == nil {
		return "/" + stream + "/index.m3u8"
	}
	return strings.NewReplacer("{stream...}", stream, "{stream}", stream, "**", "index.m3u8", "*", "index.m3u8").Replace(n.URL.String())
}

// Bring puts a token where the node looks for it first: into the path and query of the viewer's
// address, or, with an address that stays as it is, as a header ("Name: value").
func Bring(n *policy.Node, path, query, token string) (newPath, newQuery, header string) {
	kind, name, _ := strings.Cut(n.Token[0], ":")
	switch kind {
	case "header":
		if strings.EqualFold(name, "Authorization") {
			token = "Bearer " + token
		}
		return path, query, name + ": " + token
	case "cookie":
		return path, query, "Cookie: " + name + "=" + token
	case "path":
		elements := strings.Split(path, "/") // the first is empty
		if at, err := strconv.Atoi(name); err == nil && at < len(elements) {
			elements[at] = url.PathEscape(token)
		}
		return strings.Join(elements, "/"), query, ""
	}
	if query != "" {
		query += "&"
	}
	return path, query + url.QueryEscape(name) + "=" + url.QueryEscape(token), ""
}

// Brought are the texts in an address that may be a token: what stands where the node looks, and
// without a node everything that could be one.
func Brought(n *policy.Node, u *url.URL) []string {
	places := []string{"query:token"}
	if n != nil {
		places = n.Token
	}
	elements := strings.Split(u.Path, "/")
	var all []string
	for _, place := range places {
		kind, name, _ := strings.Cut(place, ":")
		at, _ := strconv.Atoi(name)
		switch {
		case kind == "query":
			all = append(all, u.Query()[name]...)
		case kind == "path" && at > 0 && at < len(elements):
			all = append(all, elements[at])
		}
	}
	if n == nil && len(all) == 0 {
		for _, values := range u.Query() {
			all = append(all, values...)
		}
		all = append(all, elements...)
	}
	return all
}
