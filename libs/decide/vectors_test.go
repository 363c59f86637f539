package decide_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"usher.internal/libs/decide/decidetest"
)

// flussonicVectors are all that stand in the spec of Flussonic as a caller, in its section of vectors.
var flussonicVectors = []string{
	"ST-1", "ST-3", "ST-5", "ST-7", "ST-9", "ST-11", "ST-13", "CL-1",
	"SV-1", "SV-3", "SV-5", "SV-7", "SV-9", "SV-11",
	"BP-1", "BP-3", "BP-5", "BP-7", "BP-9", "BP-11", "BP-13",
	"AC-1", "AC-3", "AC-5", "AC-7", "AC-9", "AC-11", "AC-13",
	"LM-1", "LM-3", "LM-5", "LM-7", "LM-9", "DL-1", "DL-3", "IB-1", "IB-3", "DV-1", "DV-3", "AL-1",
}

// listed is a row of the list of vectors.
type listed struct{ where, levels string }

// TestVectorsAreListed: every vector is on the list of testdata/cases/README.md; where the list names a
// file of cases, that file asks it, at each level that the list claims.
func TestVectorsAreListed(t *testing.T) {
	t.Parallel()
	rows := vectorRows(t)
	files := map[string]*decidetest.File{}
	for _, f := range decidetest.Load(t, "testdata/cases") {
		files[f.Name+".yaml"] = f
	}
	named := regexp.MustCompile("`([a-z_]+\\.yaml)`")
	for _, id := range flussonicVectors {
		row, ok := rows[id]
		switch {
		case !ok:
			t.Errorf("%s is not on the list", id)
			continue
		case strings.HasPrefix(row.where, "none: "):
			continue // it says why
		case !strings.ContainsAny(row.levels, "ENH"):
			t.Errorf("%s: the list names no level: %q", id, row.levels)
		}
		var asked []decidetest.Question
		cases := false
		for _, m := range named.FindAllStringSubmatch(row.where, -1) {
			f := files[m[1]]
			if f == nil {
				t.Errorf("%s: there is no file %s", id, m[1])
				continue
			}
			cases = true
			for _, q := range f.Questions {
				if q.Name == id || strings.HasPrefix(q.Name, id+" ") {
					asked = append(asked, q)
				}
			}
		}
		if !cases {
			inTests(t, id, row.where)
			continue
		}
		for letter, level := range map[string]decidetest.Level{"E": decidetest.Engine, "N": decidetest.NATS, "H": decidetest.HTTP} {
			claimed := slices.Contains(strings.Fields(row.levels), letter)
			if claimed && !slices.ContainsFunc(asked, func(q decidetest.Question) bool { _, not := q.Not[level]; return !not }) {
				t.Errorf("%s: %s asks it nowhere at level %s", id, row.where, level)
			}
		}
	}
}

// inTests looks for the Go test that the list names for a vector that is no case.
func inTests(t *testing.T, id, where string) {
	t.Helper()
	name := regexp.MustCompile(`Test[A-Z]\w+`).FindString(where)
	found := false
	for _, dir := range []string{"../../services/usher/e2e", "../../services/usher/e2e/viewing"} {
		paths, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			found = found || name != "" && strings.Contains(string(text), "func "+name+"(")
		}
	}
	if !found {
		t.Errorf("%s: neither a file of cases nor a test is named that is there: %s", id, where)
	}
}

// vectorRows reads the list.
func vectorRows(t *testing.T) map[string]listed {
	t.Helper()
	text, err := os.ReadFile("testdata/cases/README.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]listed{}
	first := regexp.MustCompile(`^(ST|SV|CL|BP|AC|LM|DL|IB|DV|AL)-([0-9, ]+)$`)
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 5 {
			continue
		}
		m := first.FindStringSubmatch(strings.TrimSpace(cells[1]))
		if m == nil {
			continue
		}
		for n := range strings.SplitSeq(m[2], ",") {
			rows[m[1]+"-"+strings.TrimSpace(n)] = listed{strings.TrimSpace(cells[2]), strings.TrimSpace(cells[3])}
		}
	}
	return rows
}
