package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// tick is the unit of /proc/PID/stat: 1/100 s on every Linux.
const tick = 10 * time.Millisecond

// watched is a process, or a server with its children, whose processor time is told apart.
type watched struct {
	name string
	pid  int
	tree bool // with the children, dead ones included
}

// Names under which used tells of the whole machine.
const (
	machine = "machine" // busy with anything
	unused  = "unused"
)

// used is the processor time, user and system, that each has used so far.
func used(all []watched) map[string]time.Duration {
	out := make(map[string]time.Duration, len(all))
	for _, w := range all {
		own, dead := times(w.pid)
		out[w.name] += own
		if !w.tree {
			continue
		}
		out[w.name] += dead
		for _, child := range children(w.pid) {
			own, dead := times(child)
			out[w.name] += own + dead
		}
	}
	out[machine], out[unused] = machineTimes()
	return out
}

// machineTimes are the first line of /proc/stat: user nice system idle iowait irq softirq steal.
func machineTimes() (busy, idle time.Duration) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := bytes.Cut(raw, []byte("\n"))
	for i, f := range bytes.Fields(line) {
		switch i {
		case 1, 2, 3, 6, 7, 8:
			busy += clock(f)
		case 4, 5:
			idle += clock(f)
		}
	}
	return busy, idle
}

// since is what was used after before was taken.
func since(before, after map[string]time.Duration) map[string]time.Duration {
	out := make(map[string]time.Duration, len(after))
	for name, d := range after {
		out[name] = d - before[name]
	}
	return out
}

// times reads a process's own time and that of its children which have ended.
func times(pid int) (own, dead time.Duration) {
	f := stat(pid)
	if len(f) < 15 {
		return 0, 0
	}
	return clock(f[11]) + clock(f[12]), clock(f[13]) + clock(f[14])
}

// stat are the fields of /proc/PID/stat from the third on: the second is a name in
// parentheses that may hold anything.
func stat(pid int) [][]byte {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil // it has ended
	}
	at := bytes.LastIndexByte(raw, ')')
	return bytes.Fields(raw[at+1:])
}

func clock(text []byte) time.Duration {
	n, _ := strconv.ParseInt(string(text), 10, 64) // the kernel writes numbers
	return time.Duration(n) * tick
}

// children are the live children of a process. The list of the main thread is all there
// is for Postgres, which has no others.
func children(pid int) []int {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var out []int
	for _, f := range bytes.Fields(raw) {
		if n, err := strconv.Atoi(string(f)); err == nil {
			out = append(out, n)
		}
	}
	return out
}
