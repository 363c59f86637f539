package condition

import (
	"errors"
	"net/netip"
	"reflect"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"usher.internal/libs/network"
)

// Our own types: an address, and a list of networks that addresses are in.
var (
	addressType = cel.OpaqueType("address")
	listType    = types.NewOpaqueType("network")
	// The runtime type says with its trait that `in` may ask it.
	listRuntime = types.NewObjectType("network", traits.ContainerType)
)

var errConvert = errors.New("addresses and networks are nothing else")

// addressValue is an address in an expression.
type addressValue struct{ ip netip.Addr }

var _ ref.Val = addressValue{}

// ConvertToNative implements ref.Val.
func (a addressValue) ConvertToNative(reflect.Type) (any, error) { return nil, errConvert }

// ConvertToType implements ref.Val.
func (a addressValue) ConvertToType(ref.Type) ref.Val { return types.WrapErr(errConvert) }

// Equal implements ref.Val.
func (a addressValue) Equal(o ref.Val) ref.Val {
	other, ok := o.(addressValue)
	return types.Bool(ok && other.ip == a.ip)
}

// Type implements ref.Val.
func (a addressValue) Type() ref.Type { return addressType }

// Value implements ref.Val.
func (a addressValue) Value() any { return a.ip }

// listValue is a list of networks in an expression.
type listValue struct{ list *network.List }

var (
	_ ref.Val          = listValue{}
	_ traits.Container = listValue{}
)

// Contains implements traits.Container: `ip in networks.office`.
func (l listValue) Contains(v ref.Val) ref.Val {
	a, ok := v.(addressValue)
	return types.Bool(ok && l.list.Contains(a.ip))
}

// ConvertToNative implements ref.Val.
func (l listValue) ConvertToNative(reflect.Type) (any, error) { return nil, errConvert }

// ConvertToType implements ref.Val.
func (l listValue) ConvertToType(ref.Type) ref.Val { return types.WrapErr(errConvert) }

// Equal implements ref.Val.
func (l listValue) Equal(o ref.Val) ref.Val {
	other, ok := o.(listValue)
	return types.Bool(ok && other.list == l.list)
}

// Type implements ref.Val.
func (l listValue) Type() ref.Type { return listRuntime }

// Value implements ref.Val.
func (l listValue) Value() any { return l.list }
