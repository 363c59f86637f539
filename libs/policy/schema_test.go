package policy

import (
	"encoding/json"
	"slices"
	"testing"

	schema "usher.internal/schemas/policy"
)

func TestTheSchemaKnowsEveryReasonOfADenial(t *testing.T) {
	t.Parallel()
	var doc struct {
		Defs struct {
			Rule struct {
				Properties struct {
					OnDeny struct {
						PropertyNames struct{ Enum []string }
					} `json:"on_deny"`
				}
			}
		} `json:"$defs"`
	}
	if err := json.Unmarshal([]byte(schema.Schema()), &doc); err != nil {
		t.Fatal(err)
	}
	got, want := doc.Defs.Rule.Properties.OnDeny.PropertyNames.Enum, append(denials(), "*")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the schema's on_deny takes %q, the parser %q", got, want)
	}
}
