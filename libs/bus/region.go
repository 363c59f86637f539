package bus

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	names "usher.internal/schemas/nats"
)

// EnsureRegion makes the journal of another region, in that region's own JetStream, and has the
// journal of this one, the hub, source it: what is reported there is stored there, comes here
// whenever the link between the two stands, and each entry once. EnsureStreams must have run here
// before; both may run any number of times. It needs the link, and fails while that is cut.
func (c *Conn) EnsureRegion(ctx context.Context, region string, replicas int) error {
	if err := names.CheckToken("region", region); err != nil {
		return err
	}
	if region == c.cfg.Region {
		return fmt.Errorf("region %s is the hub itself", region)
	}
	ctx, cancel := withDeadline(ctx)
	defer cancel(nil)
	there, err := c.domain(region)
	if err != nil {
		return err
	}
	if err := c.ensureStream(ctx, there, journalStream(region), replicas); err != nil {
		return fmt.Errorf("ensuring the journal of region %s: %w", region, err)
	}
	here := journalStream(c.cfg.Region)
	here.Sources = []*jetstream.StreamSource{{
		Name: names.JournalStream(region),
		// Nothing of other regions, whatever lies in that stream.
		FilterSubject: names.JournalOf(region),
		External:      &jetstream.ExternalStream{APIPrefix: names.DomainAPI(region)},
	}}
	if err := c.ensureStream(ctx, c.js, here, 0); err != nil {
		return fmt.Errorf("sourcing the journal of region %s: %w", region, err)
	}
	return nil
}
