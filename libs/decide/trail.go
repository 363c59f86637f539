package decide

import (
	"time"

	"usher.internal/libs/access"
)

// trail collects the steps of a decision and how long each took.
type trail struct {
	steps []access.Step
	since time.Time
}

func newTrail() *trail { return &trail{steps: make([]access.Step, 0, 6), since: time.Now()} }

// add ends a step that began when the one before it ended.
func (t *trail) add(name, result, text string) {
	now := time.Now()
	t.steps = append(t.steps, access.Step{Name: name, Result: result, Text: text, Micros: now.Sub(t.since).Microseconds()})
	t.since = now
}

// addTook adds a step that was timed apart, since it ran beside others.
func (t *trail) addTook(name, result, text string, took time.Duration) {
	t.steps = append(t.steps, access.Step{Name: name, Result: result, Text: text, Micros: took.Microseconds()})
	t.since = time.Now()
}
