// Package policy holds the JSON Schema of the operator's policy file.
package policy

import _ "embed" // for the schema

//go:embed policy.schema.json
var schema string

// Schema is the JSON Schema (2020-12) of a policy file.
func Schema() string { return schema }
