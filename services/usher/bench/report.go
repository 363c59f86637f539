package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"
)

// report is what the results file holds: of each path the last measurement.
type report struct {
	At       time.Time          `json:"at"`
	Rounds   int                `json:"rounds"`
	Duration string             `json:"duration"`
	Paths    map[string]*result `json:"paths"`
}

// result of a path: medians of its rounds, times in milliseconds, processor time of one answer
// in microseconds.
type result struct {
	Rate     float64            `json:"rate"`
	P50      float64            `json:"p50_ms"`
	P99      float64            `json:"p99_ms"`
	Ratio    float64            `json:"ratio"`
	CPURatio float64            `json:"cpu_ratio"`
	CPU      map[string]float64 `json:"cpu_us"`
	// Idle and Others are the shares of the machine that nobody used, and that others did.
	Idle    float64   `json:"idle"`
	Others  float64   `json:"others"`
	Ratios  []float64 `json:"ratios"`
	Done    int       `json:"done"`
	Refused int       `json:"refused"`
	Wrong   int       `json:"wrong"`
	First   string    `json:"first_wrong,omitempty"`
	Reasons string    `json:"reasons,omitempty"`
}

// load reads the results of earlier runs; there may be none.
func load(path string) (*report, error) {
	r := &report{Paths: map[string]*result{}}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, r)
	}
	if err != nil {
		return nil, fmt.Errorf("reading earlier results: %w; remove %s to begin anew", err, path)
	}
	return r, nil
}

// with is the report with newer results in place of its own.
func (r *report) with(newer *report) *report {
	out := *newer
	out.Paths = maps.Clone(r.Paths)
	maps.Copy(out.Paths, newer.Paths)
	return &out
}

func (r *report) save(path string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding results: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644)
}
