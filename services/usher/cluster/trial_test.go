package cluster_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"usher.internal/libs/testkit"
	"usher.internal/services/usher/cluster"
)

// streams of a policy that lets everybody see one stream.
func open(stream string) string {
	return "  - {match: \"" + stream + "/**\", auth: allow}\n  - {match: \"" + stream + "\", auth: allow}\n"
}

// plays says whether a stream is open.
func (c *running) plays(t *testing.T, stream string) bool {
	t.Helper()
	return c.ask(t, "/hls/"+stream+"/index.m3u8?token="+time.Now().Format("150405.000000000"), "VLC "+time.Now().String()).status == 200
}

func TestAPolicyOnTrialGoesBackUnlessConfirmed(t *testing.T) {
	t.Parallel()
	dir := testkit.Dir(t)
	file := filepath.Join(dir, "policy.yaml")
	o := cluster.Options{Data: cluster.Data(filepath.Join(dir, "data")), Policy: file, Workers: 1}
	writePolicy(t, file, open("one"))
	c := boot(t, o)
	if !c.plays(t, "one") || c.plays(t, "two") {
		t.Fatal("the first policy is not in force")
	}

	// The very file that is watched: the tool or the watcher is first, and it is on trial all the same.
	writePolicy(t, file, open("two"))
	out := c.tool(t, 0, "policy", "apply", file, "--confirm", "6s", "-m", "try two")
	if !strings.Contains(out, "goes back to revision 1") {
		t.Fatalf("apply --confirm says %q", out)
	}
	eventually(t, "the policy on trial is in force", func() bool { return c.plays(t, "two") && !c.plays(t, "one") })
	if out := c.tool(t, 0, "policy", "history"); !strings.Contains(out, "unless confirmed") {
		t.Errorf("history does not tell of the trial:\n%s", out)
	}
	eventually(t, "it has gone back by itself", func() bool { return c.plays(t, "one") && !c.plays(t, "two") })
	if out := c.tool(t, 1, "policy", "confirm"); !strings.Contains(out, "revision 2 was not confirmed in time") {
		t.Errorf("confirm too late says %q", out)
	}
	c.stays(t, "3")

	// Neither a restart nor another save of the same text brings it back; a person does.
	c.stop()
	c = boot(t, o)
	c.stays(t, "3")
	writePolicy(t, file, open("three"))
	eventually(t, "another text in the file counts", func() bool { return c.plays(t, "three") })
	writePolicy(t, file, open("two"))
	c.stays(t, "4")
	c.tool(t, 0, "policy", "apply", file, "--confirm", "10m")
	if out := c.tool(t, 0, "policy", "confirm", "5"); !strings.Contains(out, "revision 5 stays") {
		t.Errorf("confirm says %q", out)
	}
	eventually(t, "the confirmed policy is in force", func() bool { return c.plays(t, "two") })
	c.tool(t, 1, "policy", "confirm", "5")
	c.tool(t, 1, "policy", "apply", file, "--confirm", "2s")
	if out := c.tool(t, 0, "policy", "rollback", "-m", "too early"); !strings.Contains(out, "revision 6, the policy of revision 4") {
		t.Errorf("rollback says %q", out)
	}
	eventually(t, "the rolled back policy is in force", func() bool { return c.plays(t, "three") })
	c.stop()
	c = boot(t, o)
	c.stays(t, "6")
}

// stays waits until the watcher has looked twice, and expects the newest revision to be this one.
func (c *running) stays(t *testing.T, revision string) {
	t.Helper()
	seen := time.Now()
	eventually(t, "the watcher has looked", func() bool { return time.Since(seen) > 2500*time.Millisecond })
	if out := c.tool(t, 0, "policy", "show"); !strings.HasPrefix(out, "# revision "+revision+",") {
		t.Errorf("%s; want revision %s in force", out[:min(len(out), 60)], revision)
	}
}
