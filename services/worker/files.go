package worker

import (
	"context"

	"usher.internal/libs/geo"
	"usher.internal/libs/lifecycle"
	"usher.internal/libs/network"
	"usher.internal/libs/telemetry"
)

// Files are what policies look into beside their own text: databases of countries, and lists
// of networks. The workers of one process share them.
type Files struct {
	Geo      *geo.DB
	Networks *network.Files

	telemetry *telemetry.Telemetry
}

// OpenFiles reads the databases: files, or directories with files that end in .mmdb. None of
// them need to be there yet. Run follows their changes.
func OpenFiles(ctx context.Context, geoip []string, t *telemetry.Telemetry) *Files {
	f := &Files{Geo: geo.Open(ctx, geoip, t.Log), Networks: network.NewFiles(t.Log), telemetry: t}
	telemetry.NewGaugeFunc(t.Registry, telemetry.GeoDatabases(), func() float64 { return float64(f.Geo.Databases()) })
	telemetry.NewGaugeFunc(t.Registry, telemetry.GeoBuilt(), func() float64 {
		if built := f.Geo.Built(); !built.IsZero() {
			return float64(built.Unix())
		}
		return 0
	})
	return f
}

// Run reads files again when they change, until ctx ends.
func (f *Files) Run(ctx context.Context) error {
	return lifecycle.Run(ctx, f.telemetry.Log,
		lifecycle.Task{Name: "country databases", Run: f.Geo.Run},
		lifecycle.Task{Name: "networks", Run: f.Networks.Run})
}
