module usher.internal/services/recorder

go 1.26

require (
	usher.internal/libs v0.0.0
	usher.internal/schemas v0.0.0
)

replace usher.internal/schemas => ../../schemas

replace usher.internal/libs => ../../libs
