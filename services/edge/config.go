package edge

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"usher.internal/libs/config"
	names "usher.internal/schemas/nats"
)

// defaultSessions is how many sessions an edge knows at most, unless it says otherwise.
const defaultSessions = 1_000_000

// Config is an edge's own file: who it is and whom it talks to. Which nodes may ask,
// and all else that decides, stands in the policy.
type Config struct {
	// Name of this edge, as nodes of the policy may name it; a token of its subjects.
	Name string `yaml:"name"`
	// Region that it belongs to and reports to.
	Region string `yaml:"region"`
	// Ask are the regions whose workers it asks, the nearest first; none: its own alone.
	Ask []string `yaml:"ask"`
	// Hub is the region where policy and control stream are kept, where that is another than
	// Region. It is asked for them over the link between the two.
	Hub string `yaml:"hub"`
	// HTTP is the address on which callers ask.
	HTTP string `yaml:"http"`
	// Admin is the private address of health and metrics, "" for none.
	Admin string `yaml:"admin"`
	// NATS is where the workers are reached.
	NATS NATS `yaml:"nats"`
	// ClusterKey is the file with the cluster's key in base64.
	ClusterKey string `yaml:"cluster_key"`
	// State is the file in which the edge keeps what it needs after a restart: sessions, policy,
	// bans, and what it could not report yet. "" for none. Each edge has one of its own.
	State string `yaml:"state"`
	// Sessions bounds the sessions that this edge remembers; 0 means one million.
	Sessions int `yaml:"sessions"`
}

// NATS is where NATS is and how to get in: paths of files, but for URL and Token.
type NATS struct {
	URL   string `yaml:"url"`
	Creds string `yaml:"creds"`
	CA    string `yaml:"ca"`
	Cert  string `yaml:"cert"`
	Key   string `yaml:"key"`
	// Token is a reference to the token that the server asks for, if it asks for one.
	Token config.Secret `yaml:"token"`
}

// LoadConfig reads a file strictly: unknown keys fail. The error is config.Problems where
// the file's content is wrong.
func LoadConfig(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading configuration: %w", err)
	}
	var c Config
	if err := config.Decode(path, data, &c); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Validate says everything that is wrong with the file's values.
func (c *Config) Validate() error {
	errs := []error{names.CheckToken("edge", c.Name), names.CheckToken("region", c.Region)}
	for i, region := range c.Ask {
		errs = append(errs, names.CheckToken("ask: region", region))
		if slices.Contains(c.Ask[:i], region) {
			errs = append(errs, fmt.Errorf("ask: region %q stands there twice", region))
		}
	}
	if c.Hub != "" {
		errs = append(errs, names.CheckToken("hub: region", c.Hub))
	}
	if _, _, err := net.SplitHostPort(c.HTTP); err != nil {
		errs = append(errs, fmt.Errorf("http: want host:port: %w", err))
	}
	if c.Admin != "" {
		if _, _, err := net.SplitHostPort(c.Admin); err != nil {
			errs = append(errs, fmt.Errorf("admin: want host:port: %w", err))
		}
	}
	if c.NATS.URL == "" {
		errs = append(errs, errors.New("nats: url is missing"))
	}
	if c.ClusterKey == "" {
		errs = append(errs, errors.New("cluster_key is missing: the file with the cluster's key"))
	}
	if c.Sessions < 0 {
		errs = append(errs, errors.New("sessions must not be negative"))
	}
	return errors.Join(errs...)
}
