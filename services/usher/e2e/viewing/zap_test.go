package viewing_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"usher.internal/libs/pgstore"
)

// TestZappingIsNoSecondViewer has one device with one seat, which goes from stream to stream and
// back. Its player still fetches what it had begun of the stream before.
func TestZappingIsNoSecondViewer(t *testing.T) {
	t.Parallel()
	c := setup(t, shape{edges: 2, workers: 2, policy: endPolicy})
	for _, mode := range []string{"strict", "one"} {
		user, before := "nginx-"+mode, viewer{}
		for i, stream := range []string{"-a", "-b", "-c", "-a", "-b", "-a"} {
			v := c.viewerOf(user, mode+stream, "TV")
			edge := c.edges[i%2] // a balancer stands before them
			c.playsOn(v, edge)
			if before.stream != "" {
				c.want(mode+": a trailing segment", c.do(before.segment(c.edges[(i+1)%2])), http.StatusOK, "")
			}
			before = v
		}
		user = "astra-" + mode
		for i, stream := range []string{"-a", "-b", "-c", "-a", "-b", "-a"} {
			v := viewer{
				node: "astra1", stream: mode + stream, token: c.sign(mode+stream, user), ip: "203.0.113.9", agent: "Box",
				session: fmt.Sprint(user, i),
			}
			c.want(mode+": astra", c.do(v.astra(c.edges[0])), http.StatusOK, "")
			if seats := c.live(pgstore.SessionFilter{User: user}); len(seats) != 1 || seats[0].Stream != v.stream {
				t.Errorf("%s: after zapping to %s the seats are %+v, want that one", mode, v.stream, seats)
			}
			// Another device of the user is a second viewer.
			other := v
			other.agent, other.session = "Other", v.session+"-other"
			if mode == "strict" {
				c.want("a second device", c.do(other.astra(c.edges[1])), http.StatusForbidden, "limit")
			}
		}
	}
}

// TestZappingBack stays on the stream to which it came back, for longer than the last requests
// of a stream that was left are tolerated.
func TestZappingBack(t *testing.T) {
	t.Parallel()
	const tolerated = 20 * time.Second
	c := setup(t, shape{edges: 1, workers: 2, policy: endPolicy})
	edge := c.edges[0]
	var back []viewer
	for _, mode := range []string{"strict", "one"} {
		for _, stream := range []string{"-a", "-b", "-c"} {
			c.playsOn(c.viewerOf(mode, mode+stream, "TV"), edge)
		}
		a := c.viewerOf(mode, mode+"-a", "TV")
		c.playsOn(a, edge)
		back = append(back, a)
	}
	pace := time.NewTicker(500 * time.Millisecond)
	defer pace.Stop()
	for begin := time.Now(); time.Since(begin) < tolerated+3*time.Second; <-pace.C {
		for _, v := range back {
			if a := c.do(v.segment(edge)); a.status != http.StatusOK {
				t.Fatalf("%v after zapping back to %s: answered %v, want 200", time.Since(begin), v.stream, a)
			}
		}
	}
	for _, v := range back {
		seats := c.live(pgstore.SessionFilter{User: v.stream[:len(v.stream)-len("-a")]})
		if len(seats) != 1 || seats[0].Stream != v.stream {
			t.Errorf("seats after zapping back to %s: %+v", v.stream, seats)
		}
	}
}
