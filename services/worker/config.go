package worker

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"usher.internal/libs/bus"
	"usher.internal/libs/config"
	"usher.internal/schemas/nats"
)

// Defaults of the pool. A question waits most of its time (for a middleware, for the group
// commit), so that there are many more places than processors.
const (
	poolPerCPU   = 64
	queuePerPool = 2
	// seatsPool handles renewals: each message is one or a few group commits.
	seatsPool, seatsQueue = 8, 64
)

// Config is the worker's file.
type Config struct {
	// Name of this worker, unique in the cluster; a token of NATS subjects.
	Name string `yaml:"name"`
	// Region whose questions it answers and whose journal it writes.
	Region string `yaml:"region"`
	// Hub is the region that keeps policy and control stream, where that is another.
	Hub string `yaml:"hub"`
	// Admin is the listen address of health and metrics, "" for none.
	Admin string `yaml:"admin"`
	// NATS is how to reach the bus.
	NATS NATS `yaml:"nats"`
	// Postgres is a reference to the connection string: file:/path or env:NAME.
	Postgres config.Secret `yaml:"postgres"`
	// ClusterKey is the file with the cluster's key in base64.
	ClusterKey string `yaml:"cluster_key"`
	// GeoIP are databases of countries and operators in MaxMind's format, files (.mmdb) or
	// directories of them; read again when they change. None need to be there.
	GeoIP []string `yaml:"geoip"`
	// Pool is how many questions are worked on at once (64 a processor).
	Pool int `yaml:"pool"`
	// Queue is how many more may wait (twice the pool); the rest is answered BUSY at once.
	Queue int `yaml:"queue"`
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

// Load reads and checks a worker's file. The error is config.Problems, or the file's.
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
	if err := nats.CheckToken("name", c.Name); err != nil {
		errs = append(errs, fmt.Errorf("name: %w", err))
	}
	if err := nats.CheckToken("region", c.Region); err != nil {
		errs = append(errs, fmt.Errorf("region: %w", err))
	}
	if c.Hub != "" {
		if err := nats.CheckToken("hub", c.Hub); err != nil {
			errs = append(errs, fmt.Errorf("hub: %w", err))
		}
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
	if c.ClusterKey == "" {
		errs = append(errs, errors.New("cluster_key: missing, the path of the cluster's key"))
	}
	if c.Pool < 0 || c.Queue < 0 {
		errs = append(errs, errors.New("pool: pool and queue are counts, 0 for the default"))
	}
	return errors.Join(errs...)
}

// filled is c with defaults.
func (c Config) filled() Config {
	if c.Pool == 0 {
		c.Pool = poolPerCPU * runtime.GOMAXPROCS(0)
	}
	if c.Queue == 0 {
		c.Queue = queuePerPool * c.Pool
	}
	return c
}

// busConfig is how the worker connects.
func (c *Config) busConfig() (bus.Config, error) {
	b := bus.Config{
		Name: c.Name, Region: c.Region, Hub: c.Hub, URL: c.NATS.URL,
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
