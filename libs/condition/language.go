package condition

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"usher.internal/libs/config"
	"usher.internal/libs/network"
)

// The functions that are ours.
const (
	inFunction      = "network" // network("10.0.0.0/8")
	hourFunction    = "hour"    // time.hour("Europe/Berlin")
	weekdayFunction = "weekday" // time.weekday("Europe/Berlin")
	lowerFunction   = "lower"   // ua.lower()
)

// MaxText is the longest expression, in bytes.
const MaxText = 4096

// Language is what expressions of one policy are written in: the variables, the functions,
// and the policy's networks. It is safe for concurrent use.
type Language struct {
	env      *cel.Env
	networks []string
	// Constants of expressions, read once when the expression is compiled.
	prefixes, zones sync.Map

	mu    sync.Mutex // guards known
	known map[string]compiled
}

type compiled struct {
	expr     *Expr
	problems []Problem
}

// New makes the language for a policy with these networks.
func New(networks []string) (*Language, error) {
	l := &Language{networks: networks, known: map[string]compiled{}}
	options := []cel.EnvOption{
		cel.StdLib(cel.StdLibSubset(&env.LibrarySubset{ExcludeFunctions: slowZones()})),
		cel.ParserExpressionSizeLimit(MaxText),
		cel.ParserRecursionLimit(40),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.Function(operators.In, cel.Overload("in_network", []*cel.Type{addressType, listType}, cel.BoolType)),
		cel.Function(inFunction, cel.Overload("network_string", []*cel.Type{cel.StringType}, listType, cel.UnaryBinding(l.prefix))),
		cel.Function(hourFunction, cel.MemberOverload("timestamp_hour", []*cel.Type{cel.TimestampType, cel.StringType}, cel.IntType,
			cel.BinaryBinding(l.zoned(func(t time.Time) ref.Val { return types.Int(t.Hour()) })))),
		cel.Function(weekdayFunction, cel.MemberOverload("timestamp_weekday", []*cel.Type{cel.TimestampType, cel.StringType}, cel.StringType,
			cel.BinaryBinding(l.zoned(func(t time.Time) ref.Val { return types.String(strings.ToLower(t.Weekday().String()[:3])) })))),
		cel.Function(lowerFunction, cel.MemberOverload("string_lower", []*cel.Type{cel.StringType}, cel.StringType,
			cel.UnaryBinding(func(v ref.Val) ref.Val { return types.String(strings.ToLower(string(v.(types.String)))) }))),
	}
	for _, v := range variables {
		options = append(options, cel.Variable(v.name, v.kind))
	}
	for _, name := range networks {
		options = append(options, cel.Variable(networksPrefix+name, listType))
	}
	made, err := cel.NewCustomEnv(options...)
	if err != nil {
		return nil, fmt.Errorf("making the language of expressions: %w", err)
	}
	l.env = made
	return l, nil
}

// slowZones are CEL's own readings of a clock in a zone: they read the zone's file each time.
func slowZones() []*env.Function {
	var out []*env.Function
	for function, overload := range map[string]string{
		"getFullYear": "timestamp_to_year_with_tz", "getMonth": "timestamp_to_month_with_tz",
		"getDayOfYear": "timestamp_to_day_of_year_with_tz", "getDayOfMonth": "timestamp_to_day_of_month_with_tz",
		"getDate": "timestamp_to_day_of_month_1_based_with_tz", "getDayOfWeek": "timestamp_to_day_of_week_with_tz",
		"getHours": "timestamp_to_hours_with_tz", "getMinutes": "timestamp_to_minutes_with_tz",
		"getSeconds": "timestamp_to_seconds_tz", "getMilliseconds": "timestamp_to_milliseconds_with_tz",
	} {
		out = append(out, &env.Function{Name: function, Overloads: []*env.Overload{{ID: overload}}})
	}
	return out
}

// prefix is network("10.0.0.0/8"); its constant was read by learn.
func (l *Language) prefix(v ref.Val) ref.Val {
	if list, ok := l.prefixes.Load(string(v.(types.String))); ok {
		return list.(listValue)
	}
	return types.NewErr("network() takes constants alone")
}

func (l *Language) zoned(read func(time.Time) ref.Val) func(ref.Val, ref.Val) ref.Val {
	return func(t, zone ref.Val) ref.Val {
		if place, ok := l.zones.Load(string(zone.(types.String))); ok {
			return read(t.(types.Timestamp).In(place.(*time.Location)))
		}
		return types.NewErr("zones are constants alone")
	}
}

// learn reads a constant that one of our functions is called with.
func (l *Language) learn(function, text string) error {
	if function == inFunction {
		p, err := config.ParsePrefix(text)
		if err != nil {
			return err
		}
		l.prefixes.LoadOrStore(text, listValue{network.NewList([]netip.Prefix{p})})
		return nil
	}
	place, err := time.LoadLocation(text)
	if err != nil || text == "" || text == "Local" {
		return fmt.Errorf("want a time zone such as Europe/Berlin or UTC, not %q", text)
	}
	l.zones.LoadOrStore(text, place)
	return nil
}

// names are all that could have been meant.
func (l *Language) names() []string {
	names := []string{inFunction, hourFunction, weekdayFunction, lowerFunction,
		"contains", "startsWith", "endsWith", "matches", "size", "exists", "all", "has", "networks"}
	for _, v := range variables {
		names = append(names, v.name)
	}
	slices.Sort(names)
	return names
}
