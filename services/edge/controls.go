package edge

import (
	"usher.internal/services/edge/internal/control"
	astracontrol "usher.internal/services/edge/internal/control/astra"
	flussoniccontrol "usher.internal/services/edge/internal/control/flussonic"
)

// controls are the control APIs that an edge understands. A new one is a folder under
// internal/control and a line here.
func controls() []control.Kind {
	return []control.Kind{
		astracontrol.Kind(),
		flussoniccontrol.Kind(),
	}
}

// controlOf finds the control API of a kind of caller.
func controlOf(caller string) (control.Kind, bool) {
	for _, k := range controls() {
		if k.Caller == caller {
			return k, true
		}
	}
	return control.Kind{}, false
}
