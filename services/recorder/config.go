package recorder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"usher.internal/libs/bus"
	"usher.internal/libs/config"
	"usher.internal/schemas/nats"
)

// Config is the recorder's file.
type Config struct {
	// Name of this recorder, unique in the cluster.
	Name string `yaml:"name"`
	// Region whose journal it records: the hub's, where there are several.
	Region string `yaml:"region"`
	// Regions are the others, whose journals come into this one's.
	Regions []OtherRegion `yaml:"regions"`
	// Admin is the listen address of health and metrics, "" for none.
	Admin string `yaml:"admin"`
	// NATS is how to reach the bus.
	NATS NATS `yaml:"nats"`
	// Replicas of the streams that it makes if they are missing; 0 makes them with one
	// and leaves existing ones as they are.
	Replicas int `yaml:"replicas"`
	// Postgres is a reference to the connection string: file:/path or env:NAME.
	Postgres config.Secret `yaml:"postgres"`
	// DiskWatch is a path on the volume of Postgres's data, where this recorder sees it: when that is 80 % full, the oldest
	// history goes early. "" watches nothing.
	DiskWatch string `yaml:"disk_watch"`
}

// OtherRegion is one that has a NATS of its own, with a JetStream domain of its name.
type OtherRegion struct {
	Name string `yaml:"name"`
	// Replicas of its journal, as Config.Replicas.
	Replicas int `yaml:"replicas"`
}

// NATS is how to reach the bus. Files hold PEM, or a user's JWT and seed (creds).
type NATS struct {
	URL   string `yaml:"url"`
	Creds string `yaml:"creds"`
	CA    string `yaml:"ca"`
	Cert  string `yaml:"cert"`
	Key   string `yaml:"key"`
	// Token is a reference to the token that the server asks for, if it asks for one.
	Token config.Secret `yaml:"token"`
}

// Load reads and checks a recorder's file. The error is config.Problems, or the file's.
func Load(path string) (Config, error) {
	var c Config
	data, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("reading configuration: %w", err)
	}
	err = config.Decode(path, data, &c)
	return c, err
}

// Validate checks what can be checked without opening anything.
func (c *Config) Validate() error {
	var errs []error
	if err := nats.CheckToken("recorder", c.Name); err != nil {
		errs = append(errs, fmt.Errorf("name: %w", err))
	}
	if err := nats.CheckToken("region", c.Region); err != nil {
		errs = append(errs, fmt.Errorf("region: %w", err))
	}
	if c.NATS.URL == "" {
		errs = append(errs, errors.New("nats.url: missing, such as nats://127.0.0.1:4222"))
	}
	if (c.NATS.Cert == "") != (c.NATS.Key == "") {
		errs = append(errs, errors.New("nats.cert: cert and key belong together"))
	}
	if c.Postgres.IsZero() {
		errs = append(errs, errors.New("postgres: missing, such as file:/etc/usher/postgres or env:USHER_POSTGRES"))
	}
	if c.DiskWatch != "" && !filepath.IsAbs(c.DiskWatch) {
		errs = append(errs, errors.New("disk_watch: want an absolute path, such as /var/lib/postgresql"))
	}
	if c.Replicas < 0 || c.Replicas > maxReplicas {
		errs = append(errs, fmt.Errorf("replicas: want 0 to %d", maxReplicas))
	}
	for i, r := range c.Regions {
		if err := nats.CheckToken("region", r.Name); err != nil {
			errs = append(errs, fmt.Errorf("regions[%d].name: %w", i, err))
		}
		if r.Name == c.Region || slices.ContainsFunc(c.Regions[:i], func(o OtherRegion) bool { return o.Name == r.Name }) {
			errs = append(errs, fmt.Errorf("regions[%d].name: %q stands there twice, or is this region", i, r.Name))
		}
		if r.Replicas < 0 || r.Replicas > maxReplicas {
			errs = append(errs, fmt.Errorf("regions[%d].replicas: want 0 to %d", i, maxReplicas))
		}
	}
	return errors.Join(errs...)
}

// maxReplicas is JetStream's own limit.
const maxReplicas = 5

// busConfig is how the recorder connects.
func (c *Config) busConfig() (bus.Config, error) {
	b := bus.Config{
		Name: c.Name, Region: c.Region, URL: c.NATS.URL,
		Creds: c.NATS.Creds, CA: c.NATS.CA, Cert: c.NATS.Cert, Key: c.NATS.Key,
	}
	if c.NATS.Token.IsZero() {
		return b, nil
	}
	var err error
	b.Token, err = c.NATS.Token.Resolve()
	if err != nil {
		return b, fmt.Errorf("nats token: %w", err)
	}
	return b, nil
}
