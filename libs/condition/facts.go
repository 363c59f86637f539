// Package condition is the language of an operator's own rules: one expression in CEL over
// what is known of a question, such as
//
//	country in ["DE", "AT"] && !(ip in networks.office) && time.hour("Europe/Berlin") < 6
//
// An expression is type-checked when the policy is read, its cost is bounded then and again
// when it runs, and it sees neither token nor query: what it says can be told to anybody.
package condition

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"usher.internal/libs/access"
	"usher.internal/libs/network"
)

// Facts are what one question shows to expressions. They are used by one goroutine.
type Facts struct {
	Stream, Host, Path, Node, Caller, Region, Edge string
	IP                                             netip.Addr
	Country, Org                                   string
	ASN                                            uint32
	UserAgent, Referer, Protocol, Device           string
	HasToken                                       bool
	Time                                           time.Time
	// User, Realm and Sessions (the number that the check gave) are known after the checks.
	User, Realm string
	Sessions    int
	// Networks are the lists that networks.NAME stands for.
	Networks map[string]*network.List

	known [slotCount]any // values in CEL's form, once they were asked for
}

// slot numbers the variables.
type slot int

// The variables, in the order of the README.
const (
	slotStream slot = iota
	slotHost
	slotPath
	slotNode
	slotCaller
	slotRegion
	slotEdge
	slotIP
	slotCountry
	slotASN
	slotOrg
	slotUA
	slotReferer
	slotProtocol
	slotDevice
	slotHasToken
	slotTime
	slotUser
	slotRealm
	slotSessions
	slotCount
)

// variable is what an expression may name.
type variable struct {
	name string
	kind *cel.Type
	size uint64 // the most bytes of a text
}

// variables by slot.
var variables = [slotCount]variable{
	slotStream:   {"stream", cel.StringType, access.MaxName},
	slotHost:     {"host", cel.StringType, access.MaxHost},
	slotPath:     {"path", cel.StringType, access.MaxPath},
	slotNode:     {"node", cel.StringType, access.MaxName},
	slotCaller:   {"caller", cel.StringType, access.MaxName},
	slotRegion:   {"region", cel.StringType, access.MaxName},
	slotEdge:     {"edge", cel.StringType, access.MaxName},
	slotIP:       {"ip", addressType, 1},
	slotCountry:  {"country", cel.StringType, 2},
	slotASN:      {"asn", cel.IntType, 1},
	slotOrg:      {"org", cel.StringType, access.MaxName},
	slotUA:       {"ua", cel.StringType, access.MaxUserAgent},
	slotReferer:  {"referer", cel.StringType, access.MaxReferer},
	slotProtocol: {"protocol", cel.StringType, access.MaxName},
	slotDevice:   {"device", cel.StringType, access.MaxName},
	slotHasToken: {"has_token", cel.BoolType, 1},
	slotTime:     {"time", cel.TimestampType, 1},
	slotUser:     {"user", cel.StringType, access.MaxName},
	slotRealm:    {"realm", cel.StringType, access.MaxName},
	slotSessions: {"sessions", cel.IntType, 1},
}

// slots finds a variable by its name.
var slots = func() map[string]slot {
	m := make(map[string]slot, slotCount)
	for i, v := range variables {
		m[v.name] = slot(i)
	}
	return m
}()

// networksPrefix begins the variables that stand for lists of networks.
const networksPrefix = "networks."

// ResolveName implements cel.Activation.
func (f *Facts) ResolveName(name string) (any, bool) {
	if s, ok := slots[name]; ok {
		if f.known[s] == nil {
			f.known[s] = f.value(s)
		}
		return f.known[s], true
	}
	if name, ok := strings.CutPrefix(name, networksPrefix); ok {
		if list := f.Networks[name]; list != nil {
			return listValue{list}, true
		}
	}
	return nil, false
}

// Parent implements cel.Activation.
func (f *Facts) Parent() cel.Activation { return nil }

func (f *Facts) value(s slot) ref.Val {
	switch s {
	case slotIP:
		return addressValue{f.IP}
	case slotASN:
		return types.Int(f.ASN)
	case slotHasToken:
		return types.Bool(f.HasToken)
	case slotTime:
		return types.Timestamp{Time: f.Time}
	case slotSessions:
		return types.Int(f.Sessions)
	default:
		return types.String(f.text(s))
	}
}

// text is a variable's value as keys of the index name it.
func (f *Facts) text(s slot) string {
	switch s {
	case slotStream:
		return f.Stream
	case slotHost:
		return f.Host
	case slotPath:
		return f.Path
	case slotNode:
		return f.Node
	case slotCaller:
		return f.Caller
	case slotRegion:
		return f.Region
	case slotEdge:
		return f.Edge
	case slotCountry:
		return f.Country
	case slotASN:
		return strconv.FormatUint(uint64(f.ASN), 10)
	case slotOrg:
		return f.Org
	case slotUA:
		return f.UserAgent
	case slotReferer:
		return f.Referer
	case slotProtocol:
		return f.Protocol
	case slotDevice:
		return f.Device
	case slotUser:
		return f.User
	case slotRealm:
		return f.Realm
	default:
		return ""
	}
}

// Learn tells what the checks said of the viewer.
func (f *Facts) Learn(realm, user string, sessions int) {
	f.Realm, f.User, f.Sessions = realm, user, sessions
	f.known[slotRealm], f.known[slotUser], f.known[slotSessions] = nil, nil, nil
}
