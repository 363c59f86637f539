package decide

import (
	"context"

	"usher.internal/libs/access"
)

// archive says how far into the archive who is let in may go, and refuses him the part that he
// asks for if it is not open to him: by the check's own word, else the rule's. The live stream is
// never refused here. Who comes by an operator's override, and a machine, may have all of it.
func (j *judgement) archive(context.Context) bool {
	v := &j.verdict
	if v.Outcome != access.Allow || v.Reason == access.Overridden || v.Reason == access.Client {
		return false
	}
	v.Reach = j.reach
	if v.Rule != nil {
		v.Reach = v.Rule.Archive.Reach(j.reach)
	}
	if j.req.Archive.Kind == access.Live {
		return false
	}
	why, open := v.Reach.Opens(j.req.Archive, j.deps.Now())
	if open {
		return false
	}
	j.trail.add("archive", no, why)
	v.Lease, v.Seat, v.Reach, v.Unavailable = 0, 0, nil, false
	v.deny(access.NoArchive, "archive of "+v.Rule.Name()+": "+why, "")
	return true
}
