package pgstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/google/uuid"

	"usher.internal/libs/access"
	"usher.internal/libs/admission"
	"usher.internal/libs/admission/admissiontest"
)

// step is one operation of a history on one account: an open by a device, or the close of a session.
type step struct {
	open    bool
	session uuid.UUID
}

const linearLimit = 2

// accountModel is one account with a limit, mode refuse: the state is the sorted list of live sessions.
var accountModel = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		live := strings.Fields(state.(string))
		in, admitted := input.(step), output.(bool)
		id := in.session.String()
		switch {
		case in.open && admitted != (len(live) < linearLimit):
			return false, state
		case in.open && admitted:
			live = append(live, id)
			slices.Sort(live)
		case !in.open:
			live = slices.DeleteFunc(live, func(s string) bool { return s == id })
		}
		return true, strings.Join(live, " ")
	},
	Equal: func(a, b any) bool { return a == b },
}

// TestLinearizable records what concurrent clients of several workers saw of each account and asks porcupine whether
// some order of the operations explains it.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	workers := commit(t, h, 4)
	for account := range 40 {
		var mu sync.Mutex
		var history []porcupine.Operation
		var wg sync.WaitGroup
		for client := range 6 {
			wg.Go(func() {
				ops := play(t, workers[client%len(workers)], account, client)
				mu.Lock()
				history = append(history, ops...)
				mu.Unlock()
			})
		}
		wg.Wait()
		if porcupine.CheckOperationsTimeout(accountModel, history, time.Minute) != porcupine.Ok {
			t.Fatalf("account %d: no order of the operations explains what its clients saw", account)
		}
	}
}

func play(t *testing.T, c *admission.Committer, account, client int) []porcupine.Operation {
	rnd := rand.New(rand.NewPCG(uint64(account), uint64(client)))
	var ops []porcupine.Operation
	var mine []uuid.UUID
	for i := range 6 {
		v := admissiontest.Viewer{User: fmt.Sprint("a", account), Device: fmt.Sprint("c", client, "-", i), Limit: linearLimit, Mode: access.RefuseNew}
		it := v.Open("a")
		in := step{open: true, session: it.Open.Session}
		if len(mine) > 0 && rnd.IntN(2) == 0 {
			in = step{session: mine[0]}
			it = admission.Item{Sign: &admission.Sign{Session: mine[0], Close: true, Reason: access.CloseStopped}}
			mine = mine[1:]
		}
		call := time.Now().UnixNano()
		r, err := c.Do(context.Background(), it)
		if err != nil {
			t.Errorf("account %d: %v", account, err)
			return ops
		}
		admitted := in.open && r.Outcome == access.Allow
		if admitted {
			mine = append(mine, in.session)
		}
		ops = append(ops, porcupine.Operation{ClientId: client, Input: in, Output: admitted, Call: call, Return: time.Now().UnixNano()})
	}
	return ops
}
