package cluster

import (
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

//go:embed example.yaml
var examplePolicy string

// makeExample writes the example policy and the secret that it refers to, where none
// stand yet.
func (d Data) makeExample() error {
	if _, err := os.Stat(d.PolicyFile()); err == nil {
		return nil
	}
	secret, err := filepath.Abs(d.secretFile())
	if err != nil {
		return fmt.Errorf("path of the example's secret: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(secret), 0o700); err != nil {
		return fmt.Errorf("making the folder of secrets: %w", err)
	}
	raw := make([]byte, 16)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	if err := writeNew(secret, []byte(hex.EncodeToString(raw)+"\n"), 0o600); err != nil {
		return err
	}
	return writeNew(d.PolicyFile(), []byte(strings.ReplaceAll(examplePolicy, "@SECRET@", secret)), 0o644)
}
