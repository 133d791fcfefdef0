package checkpoint

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/nodeagent/lease"
	"github.com/drover-project/drover/nodeagent/migrate"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newEnds is what an agent has that knows nothing but what is on the node.
func newEnds(t *testing.T) *lease.Ends {
	return lease.New(layout.Default, "/", nil, slog.New(slog.NewTextHandler(t.Output(), nil)))
}

// talked is a container that counts and is talked to by all that there is, and is dumped with
// its connections while nothing reaches it.
type talked struct {
	lan
	a      *agent
	ends   *lease.Ends
	source *container
	m      migrate.Move
	dump   migrate.Dumped
	last   count
	talks  []*talk
}

func talkedTo(t *testing.T) *talked {
	t.Helper()
	k := &talked{lan: newLAN(t), a: startAgent(t), source: newContainer(t, "src", nil)}
	k.plug(k.source.id, 2)
	k.ends = newEnds(t)
	k.source.run()
	k.last = k.source.next()
	client := k.client(3)
	for _, network := range []string{"tcp", "udp"} {
		for _, to := range k.addresses(2) {
			k.talks = append(k.talks, k.talk(client, network, to))
		}
	}
	for _, talk := range k.talks {
		talk.goOn()
	}
	k.m = move(k.source, nil)
	k.m.KeepsConnections = true
	k.m.Keep = migrate.Keep{Old: k.addresses(2), New: k.addresses(4)[0], For: time.Hour}
	k.a.frozen = k.ends.Hold
	var err error
	if k.dump, err = (migrate.Holding{Checkpointer: k.a.dumps, Addresses: k.ends}).Dump(within(t), k.m); err != nil {
		t.Fatal(err)
	}
	k.last = k.source.mustRest(k.last)
	return k
}

// arrived is the target with its copy, held.
func (k *talked) arrived(t *testing.T) *attempt {
	t.Helper()
	target := newContainer(t, "dst", map[string]string{"drover.dev/migration": k.m.Name})
	k.plug(target.id, 4)
	at := &attempt{a: k.a, source: k.source, target: target, m: move(k.source, target), last: k.last, frozenAt: k.dump.FrozenAt}
	at.m.KeepsConnections, at.m.Keep = true, k.m.Keep
	at.images = filepath.Join(layout.Default.Images(), at.m.UID+"-1")
	must(t, os.CopyFS(at.images, os.DirFS(k.dump.Dir)))
	t.Cleanup(func() { os.RemoveAll(at.images) })
	at.wait(t)
	if found, err := k.ends.Find(at.m); err != nil || found != at.m.Keep.New {
		t.Fatalf("the new sandbox has %v, %v; want %v", found, err, at.m.Keep.New)
	}
	must(t, k.ends.Arrive(at.m))
	must(t, at.a.copies.Restore(within(t), at.m, target.id, at.images))
	at.a.expect("held " + target.id)
	at.mustBeHeld(t)
	return at
}

// unlocked fails if CRIU has left a lock behind.
func unlocked(t *testing.T, all ...*container) {
	t.Helper()
	for _, c := range all {
		if tables := run(t, "ip", "netns", "exec", c.id, "nft", "list", "tables"); strings.Contains(tables, "CRIU") {
			t.Errorf("a network lock is left behind: %s", tables)
		}
	}
}

// TestConnectionsMove: whoever talks to the pod goes on talking to it where it is now, and notices
// nothing but a gap.
func TestConnectionsMove(t *testing.T) {
	k := talkedTo(t)
	at := k.arrived(t)
	must(t, at.a.copies.Resume(within(t), at.m, at.target.id, func() error { return k.ends.Open(t.Context(), at.m) }))
	must(t, at.a.dumps.End(within(t), at.m))
	must(t, k.ends.Forward(at.m))
	must(t, <-at.created)
	at.target.start()
	if first := at.target.next(); first.n != k.last.n+1 {
		t.Errorf("the copy went on with %d after %d", first.n, k.last.n)
	} else {
		t.Logf("gap %s", first.at.Sub(k.last.at).Round(time.Millisecond))
	}
	for _, talk := range k.talks {
		talk.end()
	}
	unlocked(t, at.source, at.target)
}

// TestConnectionsAbort: a move that is aborted closes no connection either, however far it was and
// whoever died.
func TestConnectionsAbort(t *testing.T) {
	for name, until := range map[string]func(*testing.T, *talked){
		"dumped": func(*testing.T, *talked) {},
		"restored": func(t *testing.T, k *talked) {
			at := k.arrived(t)
			must(t, at.a.copies.Kill(within(t), at.m))
			at.mustBeGone(t)
			must(t, k.ends.Clear(at.m, migrate.RoleTarget))
		},
		"criu-is-dead":  func(t *testing.T, _ *talked) { kill(t, "criu") },
		"agent-is-dead": func(t *testing.T, k *talked) { k.a, k.ends = k.a.restart(), newEnds(t) },
	} {
		t.Run(name, func(t *testing.T) {
			k := talkedTo(t)
			until(t, k)
			must(t, k.a.dumps.Release(within(t), k.m))
			must(t, k.ends.Clear(k.m, migrate.RoleSource))
			if now := k.source.next(); now.n != k.last.n+1 {
				t.Errorf("the counter went on with %d after %d", now.n, k.last.n)
			}
			for _, talk := range k.talks {
				talk.end()
			}
			unlocked(t, k.source)
		})
	}
}
