package config

import (
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

func kindOf(n *yaml.Node) Kind {
	switch n.Kind {
	case yaml.MappingNode:
		return Map
	case yaml.SequenceNode:
		return List
	default:
		return Scalar
	}
}

// describe says what stands there instead of what was wanted.
func describe(n *yaml.Node) string {
	switch kindOf(n) {
	case Map:
		return "a map"
	case List:
		return "a list"
	case Scalar:
	}
	if !plainScalar.MatchString(n.Value) {
		return quote(n.Value)
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return n.Value
	}
	return quote(n.Value)
}

// plainScalar is what needs no quotes in a message, whatever tag it bears.
var plainScalar = regexp.MustCompile(`^[A-Za-z0-9.+-]{1,60}$`)

// quote shows outside text, not all of it if it is long.
func quote(s string) string {
	if r := []rune(s); len(r) > 60 {
		s = string(r[:60]) + "…"
	}
	return strconv.Quote(s)
}

// text decodes a scalar by the type's own reading.
func (d *decoder) text(n *yaml.Node, at *place, into encoding.TextUnmarshaler) {
	if n.Kind != yaml.ScalarNode || strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
		d.wrong(n, at, "text")
		return
	}
	if err := into.UnmarshalText([]byte(n.Value)); err != nil {
		not := ""
		// What stands where a reference belongs may be the secret itself.
		if _, secret := into.(*Secret); !secret && strings.HasPrefix(err.Error(), "want ") {
			not = ", not " + quote(n.Value)
		}
		d.report(n, at, "", "%s: %s%s", nameOf(at), err.Error(), not)
	}
}

var durationType = reflect.TypeFor[time.Duration]()

func (d *decoder) scalar(n *yaml.Node, at *place, v reflect.Value) {
	tag := n.ShortTag()
	if n.Kind != yaml.ScalarNode {
		tag = ""
	}
	switch kind := v.Kind(); {
	case v.Type() == durationType:
		d.text(n, at, (*Duration)(v.Addr().Interface().(*time.Duration)))
	case kind == reflect.String:
		switch tag {
		case "!!str", "!!int", "!!float", "!!timestamp":
			v.SetString(n.Value)
		case "!!bool":
			d.wrong(n, at, "text; true and false need quotes there")
		default:
			d.wrong(n, at, "text")
		}
	case kind == reflect.Bool:
		if tag != "!!bool" {
			d.wrong(n, at, "true or false")
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case v.CanInt() || v.CanUint():
		if tag != "!!int" || !setInt(v, n.Value) {
			d.wrong(n, at, "a whole number")
		}
	case v.CanFloat():
		f, err := strconv.ParseFloat(n.Value, 64)
		if err != nil || tag != "!!int" && tag != "!!float" || v.OverflowFloat(f) {
			d.wrong(n, at, "a number")
			return
		}
		v.SetFloat(f)
	default:
		panic(fmt.Sprintf("config: cannot decode into %s", v.Type()))
	}
}

// setInt reads decimal digits only: 010 would be 8 to YAML and 10 to a reader.
func setInt(v reflect.Value, text string) bool {
	if digits := strings.TrimPrefix(text, "-"); len(digits) > 1 && digits[0] == '0' {
		return false
	}
	if v.CanUint() {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || v.OverflowUint(n) {
			return false
		}
		v.SetUint(n)
		return true
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v.OverflowInt(n) {
		return false
	}
	v.SetInt(n)
	return true
}
