package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// warm is how long each load runs before it counts.
const warm = 300 * time.Millisecond

// round is what one measured time gave.
type round struct {
	rate             float64 // answers a second
	p50, p99         time.Duration
	cpu              map[string]time.Duration // of one answer, by process
	done, no, wrong  int
	first            string
	idle, others     float64       // share of the machine that was unused, and that others used
	noopRate         float64       // of the no-op before and after it, their mean
	noopCPU, pathCPU time.Duration // of one answer, of all processes
}

// measure runs the chosen paths and shows the table.
func measure(ctx context.Context, o options, out io.Writer) (err error) {
	todo, err := chosen(o.only)
	if err != nil {
		return err
	}
	l, err := openLab(ctx, o, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	last, err := load(o.results)
	if err != nil {
		return err
	}
	t := newTable(out, last)
	t.head(l)
	all := &report{At: time.Now().UTC(), Rounds: o.rounds, Duration: o.duration.String(), Paths: map[string]*result{}}
	var failed error
	for _, p := range todo {
		r, err := l.measurePath(ctx, p)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", p.name, err))
			if r == nil {
				continue
			}
		}
		all.Paths[p.name] = r
		t.line(p, r)
	}
	t.foot(all)
	return errors.Join(failed, last.with(all).save(o.results))
}

// measurePath gives the medians of a path's rounds. With an error there may be a result too.
func (l *lab) measurePath(ctx context.Context, p path) (*result, error) {
	st, err := p.start(ctx, l)
	if err != nil {
		return nil, err
	}
	endProfiles, err := l.profiles(ctx, p)
	if err != nil {
		return nil, err
	}
	rounds, err := l.rounds(ctx, p, st)
	err = errors.Join(err, endProfiles())
	r := summary(rounds)
	if err == nil && r.Wrong > 0 {
		err = fmt.Errorf("%d wrong answers, the first: %s", r.Wrong, r.First)
	}
	if err == nil && st.after != nil {
		err = st.after(ctx, r)
	}
	if st.stop != nil {
		err = errors.Join(err, st.stop())
	}
	return r, err
}

// rounds measures, each round between two of the no-op.
func (l *lab) rounds(ctx context.Context, p path, st *stage) ([]round, error) {
	yard := l.yardStage(l.yardstick.HTTP, p.conns)
	before, err := l.once(ctx, yard, l.duration/2)
	var all []round
	for n := range l.options.rounds {
		if err != nil {
			break
		}
		if st.before != nil {
			if err = st.before(ctx, n); err != nil {
				break
			}
		}
		var r, after round
		if r, err = l.once(ctx, st, l.duration); err != nil {
			break
		}
		if after, err = l.once(ctx, yard, l.duration/2); err != nil {
			break
		}
		r.noopRate, r.noopCPU = (before.rate+after.rate)/2, (before.pathCPU+after.pathCPU)/2
		before = after
		all = append(all, r)
	}
	return all, err
}

// once measures a stage for d.
func (l *lab) once(ctx context.Context, st *stage, d time.Duration) (round, error) {
	start := time.Now().Add(warm)
	end := start.Add(d)
	took := make(chan map[string]time.Duration, 1)
	go func() {
		time.Sleep(time.Until(start))
		first := used(st.watch)
		time.Sleep(time.Until(end))
		took <- since(first, used(st.watch))
	}()
	t, err := st.load(ctx, start, end)
	cpu := <-took
	if err != nil {
		return round{}, err
	}
	if t.done == 0 {
		return round{}, fmt.Errorf("no answer came within %s: %s", d, t.first)
	}
	r := round{
		rate: float64(t.done) / d.Seconds(), p50: t.percentile(0.50), p99: t.percentile(0.99), cpu: cpu,
		done: t.done, no: t.refused, wrong: t.wrong, first: t.first,
	}
	busy, idle := cpu[machine], cpu[unused]
	delete(cpu, machine)
	delete(cpu, unused)
	var ours time.Duration
	for name, all := range cpu {
		ours += all
		cpu[name] = all / time.Duration(t.done)
		r.pathCPU += cpu[name]
	}
	if all := busy + idle; all > 0 {
		r.idle, r.others = idle.Seconds()/all.Seconds(), max(0, (busy-ours).Seconds()/all.Seconds())
	}
	return r, nil
}

// summary takes the median of each figure.
func summary(all []round) *result {
	r := &result{CPU: map[string]float64{}}
	if len(all) == 0 {
		return r
	}
	r.Rate = median(all, func(r round) float64 { return r.rate })
	r.P50 = median(all, func(r round) float64 { return r.p50.Seconds() * 1000 })
	r.P99 = median(all, func(r round) float64 { return r.p99.Seconds() * 1000 })
	r.Ratio = median(all, func(r round) float64 { return r.rate / r.noopRate })
	r.CPURatio = median(all, func(r round) float64 { return float64(r.noopCPU) / float64(r.pathCPU) })
	r.Idle = median(all, func(r round) float64 { return r.idle })
	r.Others = median(all, func(r round) float64 { return r.others })
	for name := range all[0].cpu {
		r.CPU[name] = median(all, func(r round) float64 { return float64(r.cpu[name]) / 1000 })
	}
	for _, one := range all {
		r.Done, r.Refused, r.Wrong = r.Done+one.done, r.Refused+one.no, r.Wrong+one.wrong
		r.First = cmp.Or(r.First, one.first)
		r.Ratios = append(r.Ratios, one.rate/one.noopRate)
	}
	return r
}

func median(all []round, of func(round) float64) float64 {
	list := make([]float64, 0, len(all))
	for _, r := range all {
		list = append(list, of(r))
	}
	slices.Sort(list)
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2
}
