package ministra

import (
	"encoding/json"
	"fmt"

	"usher.internal/libs/middleware"
)

// results reads the portal's JSON: the value that it keeps for the token, "" if it
// keeps none. `status` says OK for a refusal too, so that it is not looked at.
func results(body []byte) (string, error) {
	var answer map[string]json.RawMessage
	if err := json.Unmarshal(body, &answer); err != nil || answer == nil {
		return "", strange()
	}
	raw, ok := answer["results"]
	if !ok {
		return "", strange()
	}
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		return "", strange()
	}
	switch v := value.(type) {
	case string:
		if v == "0" { // PHP's other way to say false
			v = ""
		}
		return v, nil
	case float64:
		if v == 0 {
			return "", nil
		}
		return string(raw), nil
	case bool, nil:
		// true is no value that the portal keeps for a link.
		return "", nil
	}
	return "", strange()
}

// strange is an answer that no portal gives: something else stands at its address.
func strange() error {
	return fmt.Errorf("%w: its answer is not the portal's JSON", middleware.ErrUnavailable)
}
