module usher.internal/services/usher

go 1.26.0

require (
	usher.internal/libs v0.0.0
	usher.internal/schemas v0.0.0
	usher.internal/services/edge v0.0.0
	usher.internal/services/recorder v0.0.0
	usher.internal/services/worker v0.0.0
)

require (
	github.com/alecthomas/kong v1.17.0 // indirect
	go.opentelemetry.io/proto/otlp v1.11.1 // indirect
)

replace usher.internal/schemas => ../../schemas

replace usher.internal/libs => ../../libs

replace usher.internal/services/edge => ../edge

replace usher.internal/services/worker => ../worker

replace usher.internal/services/recorder => ../recorder
