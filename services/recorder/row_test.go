package recorder

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"usher.internal/schemas/proto/usherv1"
)

func TestCheckRowKeepsAGoodRow(t *testing.T) {
	t.Parallel()
	r := row()
	want := proto.Clone(r)
	if err := checkRow(parse(t), "eu", "e1", r); err != nil {
		t.Fatalf("checkRow: %v", err)
	}
	if !proto.Equal(r, want) {
		t.Errorf("checkRow made %v of %v", r, want)
	}
}

func TestCheckRowRefuses(t *testing.T) {
	t.Parallel()
	v4 := uuid.New()
	for name, c := range map[string]struct {
		change func(*usherv1.DecisionRow)
		want   error
	}{
		"no id":            {func(r *usherv1.DecisionRow) { r.Id = nil }, errMalformed},
		"random id":        {func(r *usherv1.DecisionRow) { r.Id = v4[:] }, errMalformed},
		"outcome":          {func(r *usherv1.DecisionRow) { r.Outcome = "perhaps" }, errMalformed},
		"no reason":        {func(r *usherv1.DecisionRow) { r.Reason = "" }, errMalformed},
		"reason of 1 kB":   {func(r *usherv1.DecisionRow) { r.Reason = strings.Repeat("x", 1024) }, errMalformed},
		"short session":    {func(r *usherv1.DecisionRow) { r.SessionId = []byte{1} }, errMalformed},
		"long trace":       {func(r *usherv1.DecisionRow) { r.TraceId = make([]byte, 17) }, errMalformed},
		"address":          {func(r *usherv1.DecisionRow) { r.Ip = "here" }, errMalformed},
		"another's node":   {func(r *usherv1.DecisionRow) { r.Node = "n2" }, errForeign},
		"another's node 2": {func(r *usherv1.DecisionRow) { r.Node = "n2\x00" }, errForeign},
	} {
		if err := checkRow(parse(t), "eu", "e1", row(c.change)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := checkRow(parse(t), "eu", "e2", row(func(r *usherv1.DecisionRow) { r.Node = "n2" })); err != nil {
		t.Errorf("its own node: %v", err)
	}
	if err := checkRow(parse(t), "eu", "e1", row(func(r *usherv1.DecisionRow) { r.Node = "n9" })); err != nil {
		t.Errorf("a node that nobody has: %v", err)
	}
	if err := checkRow(nil, "eu", "e1", row(func(r *usherv1.DecisionRow) { r.Node = "n2" })); err != nil {
		t.Errorf("without a policy: %v", err)
	}
}

func TestAServerAtTheWrongEdgeIsFoundInTheAudit(t *testing.T) {
	t.Parallel()
	refused := func(more func(*usherv1.DecisionRow)) *usherv1.DecisionRow {
		return row(func(r *usherv1.DecisionRow) {
			r.Node, r.Outcome, r.Reason, r.SessionId = "n2", "deny", "unknown_node", nil
			more(r)
		})
	}
	r := refused(func(*usherv1.DecisionRow) {})
	if err := checkRow(parse(t), "eu", "e1", r); err != nil {
		t.Fatalf("checkRow: %v", err)
	}
	if r.GetNode() != "" || !strings.Contains(r.GetSteps(), "gives node n2 to another edge") {
		t.Errorf("row = %v, want one that names n2 in its step alone", r)
	}
	for name, more := range map[string]func(*usherv1.DecisionRow){
		"an allow":       func(r *usherv1.DecisionRow) { r.Outcome = "allow" },
		"another reason": func(r *usherv1.DecisionRow) { r.Reason = "limit" },
		"a session":      func(r *usherv1.DecisionRow) { r.SessionId = make([]byte, 16) },
	} {
		if err := checkRow(parse(t), "eu", "e1", refused(more)); !errors.Is(err, errForeign) {
			t.Errorf("%s: %v, want %v", name, err, errForeign)
		}
	}
}

func TestCheckRowMakesARowHarmless(t *testing.T) {
	t.Parallel()
	r := row(func(r *usherv1.DecisionRow) {
		r.Edge, r.Region, r.Ip = "another", "no region!", "::ffff:192.0.2.1"
		r.Stream, r.UserAgent = "a\x00b", strings.Repeat("ü", 1<<19)
		r.DurationUs, r.Repeats, r.PolicyRevision = -5, -5, -5
		r.Steps = `[{"n":"a\u0000b","r":"\ud800","t":"` + strings.Repeat("x", 5000) + `","us":1e3}]`
	})
	if err := checkRow(parse(t), "eu", "e1", r); err != nil {
		t.Fatalf("checkRow: %v", err)
	}
	if r.GetEdge() != "e1" || r.GetRegion() != "eu" || r.GetIp() != "192.0.2.1" || r.GetStream() != "ab" || len(r.GetUserAgent()) > 512 {
		t.Errorf("row = %v", r)
	}
	if r.GetDurationUs() != 0 || r.GetRepeats() != 0 || r.GetPolicyRevision() != 0 {
		t.Errorf("numbers = %v", r)
	}
	if strings.Contains(r.GetSteps(), `\u0000`) || !utf8.ValidString(r.GetSteps()) || len(r.GetSteps()) > 2000 {
		t.Errorf("steps = %.100s…", r.GetSteps())
	}
}

func FuzzCleanSteps(f *testing.F) {
	for _, s := range []string{"", "[]", "null", `[{"n":"a"}]`, `{"n":1}`, `[{"us":1e400}]`, `[{"n":"\u0000"}]`, strings.Repeat("[", 1000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		clean := cleanSteps(text)
		var steps []map[string]any
		if err := json.Unmarshal([]byte(clean), &steps); err != nil || steps == nil {
			t.Errorf("cleanSteps(%q) = %q: %v", text, clean, err)
		}
		if strings.Contains(clean, `\u0000`) {
			t.Errorf("cleanSteps(%q) = %q holds a NUL", text, clean)
		}
		if again := cleanSteps(clean); again != clean {
			t.Errorf("cleanSteps is not stable: %q, then %q", clean, again)
		}
	})
}

func TestCheckTotals(t *testing.T) {
	t.Parallel()
	id := uuid.New()
	good := func(change func(*usherv1.SessionTotals)) *usherv1.SessionTotals {
		n := &usherv1.SessionTotals{SessionId: id[:], Node: "n1", Bytes: 1, PlayingMs: 1, Country: "DE", Detail: "timeout", EndedUnixMs: 1}
		change(n)
		return n
	}
	for name, c := range map[string]struct {
		change func(*usherv1.SessionTotals)
		want   error
	}{
		"good":           {func(*usherv1.SessionTotals) {}, nil},
		"no session":     {func(n *usherv1.SessionTotals) { n.SessionId = nil }, errMalformed},
		"zero session":   {func(n *usherv1.SessionTotals) { n.SessionId = make([]byte, 16) }, errMalformed},
		"no node":        {func(n *usherv1.SessionTotals) { n.Node = "\x00" }, errMalformed},
		"another's node": {func(n *usherv1.SessionTotals) { n.Node = "n2" }, errForeign},
		"wild values": {func(n *usherv1.SessionTotals) {
			n.Bytes, n.PlayingMs, n.EndedUnixMs, n.Country, n.Detail = -1, 1<<62, -1, "D\x00EUTSCHLAND", strings.Repeat("x", 1<<10)+"\xff"
		}, nil},
	} {
		n := good(c.change)
		if err := checkTotals(parse(t), "e1", n); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		} else if err == nil && (n.GetBytes() < 0 || n.GetPlayingMs() > maxPlaying || n.GetEndedUnixMs() < 0 || len(n.GetCountry()) > 2 || len(n.GetDetail()) > maxReason) {
			t.Errorf("%s: %v is not harmless", name, n)
		}
	}
}
