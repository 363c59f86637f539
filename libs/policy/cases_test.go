package policy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"usher.internal/libs/config"
	"usher.internal/libs/middleware/flussonic"
	"usher.internal/libs/middleware/http"
	"usher.internal/libs/middleware/iptvportal"
	"usher.internal/libs/middleware/ministra"
	"usher.internal/libs/middleware/smarty"
	"usher.internal/libs/policy"
	"usher.internal/libs/subscriber"
	"usher.internal/libs/token/jwt"
	"usher.internal/libs/token/securelink"
	"usher.internal/libs/token/securetoken"
	schema "usher.internal/schemas/policy"
)

var update = flag.Bool("update", false, "write what the parser says into the cases")

func kinds() []policy.Kind {
	return []policy.Kind{
		{Type: "securetoken", NewOptions: func() any { return securetoken.NewOptions() }},
		{Type: "jwt", NewOptions: func() any { return jwt.NewOptions() }},
		{Type: "secure_link", InAddress: true, NewOptions: func() any { return securelink.NewOptions() }},
		{Type: "users", NewOptions: func() any { return subscriber.NewOptions() },
			ReadsAddress: func(o any) bool { return o.(*subscriber.Options).AllowPassword },
			PlaylistTrust: func(o any) (bool, []config.Prefix) {
				p := o.(*subscriber.Options).Playlist
				return p != nil && p.Public, nil
			}},
		{Type: "http", Upstream: true, NewOptions: func() any { return http.NewOptions() }},
		{Type: "ministra", Upstream: true, NewOptions: func() any { return ministra.NewOptions() }},
		{Type: "iptvportal", Upstream: true, NewOptions: func() any { return iptvportal.NewOptions() }},
		{Type: "smarty", Upstream: true, NewOptions: func() any { return smarty.NewOptions() }},
		{Type: "flussonic", Upstream: true, NewOptions: func() any { return flussonic.NewOptions() }},
	}
}

// A case is a policy with comments: `# want: …` for each problem, `# warn: …` for each
// warning, and `# schema: accepts` where the JSON Schema cannot see what is wrong.
func TestCases(t *testing.T) {
	t.Parallel()
	checker := compileSchema(t)
	files, err := filepath.Glob("testdata/cases/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			snapshot, err := policy.Parse("policy.yaml", data, kinds())
			var got []string
			var problems config.Problems
			switch {
			case errors.As(err, &problems):
				for _, p := range problems {
					got = append(got, "# want: "+p.String())
				}
			case err != nil:
				t.Fatalf("the error is %T, want config.Problems", err)
			default:
				warnings := slices.Concat(config.Problems(snapshot.Warnings), snapshot.Located)
				warnings.Sort()
				for _, p := range warnings {
					got = append(got, "# warn: "+strings.Replace(p.String(), "warning: ", "", 1))
				}
			}
			if *update {
				rewrite(t, file, data, got)
				return
			}
			if want := expected(data); !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if bad := strings.HasPrefix(filepath.Base(file), "bad-"); bad != (err != nil) {
				t.Errorf("the name says otherwise than Parse: %v", err)
			}
			blind := bytes.Contains(data, []byte("# schema: accepts\n"))
			if verdict := validate(checker, data); (verdict == nil) != (err == nil || blind) {
				t.Errorf("the parser says %v, the schema says %v", err, verdict)
			}
		})
	}
}

func expected(data []byte) []string {
	var lines []string
	for line := range strings.SplitSeq(string(data), "\n") {
		if strings.HasPrefix(line, "# want: ") || strings.HasPrefix(line, "# warn: ") {
			lines = append(lines, line)
		}
	}
	return lines
}

// rewrite puts the messages behind the policy, so that its line numbers stay.
func rewrite(t *testing.T, file string, data []byte, got []string) {
	t.Helper()
	var lines []string
	for line := range strings.SplitSeq(strings.TrimRight(string(data), "\n"), "\n") {
		if !strings.HasPrefix(line, "# want: ") && !strings.HasPrefix(line, "# warn: ") {
			lines = append(lines, line)
		}
	}
	text := strings.Join(append(lines, got...), "\n") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("policy.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("policy.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// validate asks the schema about a YAML file, as an editor would.
func validate(s *jsonschema.Schema, data []byte) error {
	var node yaml.Node
	if err := yaml.Unmarshal(data, &node); err != nil {
		return err
	}
	plain(&node)
	var value any
	if err := node.Decode(&value); err != nil {
		return nil // a duplicate key: not the schema's business
	}
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return s.Validate(instance)
}

// plain makes text of times, which JSON does not have.
func plain(n *yaml.Node) {
	if n.ShortTag() == "!!timestamp" {
		n.Tag = "!!str"
	}
	for _, c := range n.Content {
		plain(c)
	}
}

// Every key of the parser stands in the schema and the other way round.
func TestSchemaKnowsEveryOption(t *testing.T) {
	t.Parallel()
	var doc struct {
		Defs map[string]struct {
			Properties map[string]struct{ Description string }
		} `json:"$defs"`
	}
	if err := json.Unmarshal([]byte(schema.Schema()), &doc); err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds() {
		options := "{type: " + kind.Type + ", zzz: 1}"
		_, err := policy.Parse("p.yaml", []byte("version: 1\nchecks: {a: "+options+"}\n"), kinds())
		if err == nil {
			t.Fatal("an unknown key is accepted")
		}
		_, list, _ := strings.Cut(strings.SplitN(err.Error(), "\n", 2)[0], "known are ")
		got := strings.Split(list, ", ")
		var want []string
		for key := range doc.Defs[kind.Type].Properties {
			want = append(want, key)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the parser knows %v, the schema %v", kind.Type, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/cases/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, "news/1")
	}
	f.Fuzz(func(t *testing.T, data []byte, stream string) {
		s, err := policy.Parse("policy.yaml", data, kinds())
		var problems config.Problems
		if err != nil && (!errors.As(err, &problems) || len(problems) == 0) {
			t.Fatalf("the error is %T (%v), want config.Problems", err, err)
		}
		for _, p := range problems {
			if p.Message == "" || p.File != "policy.yaml" || strings.ContainsAny(p.String(), "\x00") {
				t.Errorf("bad problem %#v", p)
			}
		}
		if err == nil {
			linear := &policy.Snapshot{Rules: s.Rules}
			if got, want := s.Rule(stream), linear.Rule(stream); got != want {
				t.Errorf("Rule(%q) = %v, want %v", stream, got, want)
			}
			s.Projections()
		}
	})
}
