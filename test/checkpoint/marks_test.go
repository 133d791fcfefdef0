package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-project/drover/internal/cgroup"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/chain"
	"github.com/drover-project/drover/nodeagent/checkpoint"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// No rounds are written where that would not be safe: nothing is done to the container.
func TestNoRounds(t *testing.T) {
	for name, test := range map[string]struct {
		counter string
		prepare func(*testing.T, *container, *migrate.Move)
		says    string
	}{
		"itself": {counter: "TRACK=1", says: "clear_refs open"},
		"exec":   {prepare: func(t *testing.T, c *container, _ *migrate.Move) { c.enter("/counter").next() }, says: "was brought into container"},
		"paused": {prepare: func(t *testing.T, c *container, _ *migrate.Move) {
			if err := c.group.Freeze(within(t)); err != nil {
				t.Fatal(err)
			}
		}, says: "is paused"},
		"two": {prepare: func(_ *testing.T, _ *container, m *migrate.Move) {
			m.Containers = append(m.Containers, migrate.Container{Name: "other", ID: "other"})
		}, says: "2 containers"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("COUNTER", test.counter)
			a := startAgent(t)
			c := newContainer(t, "src", nil)
			c.run()
			c.counts(5)
			m := move(c, nil)
			if test.prepare != nil {
				test.prepare(t, c, &m)
			}
			_, err := a.dumps.PreDump(within(t), m)
			if !errors.Is(err, checkpoint.ErrUntracked) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want %q", err, test.says)
			}
			if left, _ := os.ReadDir(layout.Default.Dumps()); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
			if err := c.group.Thaw(); err != nil {
				t.Fatal(err)
			}
			c.counts(5)
		})
	}
}

// tracksItself has the program track what it writes to itself, from now on.
func (c *container) tracksItself() {
	c.t.Helper()
	run(c.t, "touch", filepath.Join(c.bundle, "rootfs", "track"))
	c.counts(8)
}

// A program that begins to track itself what it writes to takes the marks away that the rounds need. Whenever
// it does, its copy has the memory that it had in the end: all of it is in the dump.
func TestRoundsOfAProgramThatTracksItself(t *testing.T) {
	tracks(t)
	for name, rounds := range map[string]int{"round": 1, "dump": 2} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HEAP_MIB", roundsHeap)
			t.Setenv("COUNTER", "LEDGER=10 TRACK=later")
			a := startAgent(t)
			c := newContainer(t, "src", nil)
			c.run()
			c.counts(5)
			m := move(c, nil)
			m.Source.Node, m.Target.Node = "a", "b"
			sender, store := receiving(t, m)
			store.Join = chain.Join
			dir, err := a.dumps.Images(m)
			if err != nil {
				t.Fatal(err)
			}
			var written []model.Bytes
			for range rounds {
				written = append(written, preDump(t, a, c, m))
				if err := sender.Push(within(t), m, dir); err != nil {
					t.Fatal(err)
				}
				c.counts(8)
			}
			c.tracksItself()
			if rounds == 1 {
				if _, err := a.dumps.PreDump(within(t), m); !errors.Is(err, checkpoint.ErrUntracked) {
					t.Errorf("another round: %v", err)
				}
				sender.Unpush(m)
			}
			at, all := dumpedAfter(t, a, c, m, sender, store, written)
			if all < roundsPages*4096 {
				t.Errorf("%d bytes were dumped, of a heap of %d", all, roundsPages*4096)
			}
			at.goesOn(t)
		})
	}
}

// between calls when a container's group is looked for, and so often has been before.
type between struct {
	checkpoint.Groups
	left int
	call func()
}

func (b *between) Container(pid int, path string) (cgroup.Group, error) {
	if b.left--; b.left == -1 {
		b.call()
	}
	return b.Groups.Container(pid, path)
}

// A program that begins to track itself when the dump has been found to be able to build on the rounds makes
// it fail: it is undone, and the next one builds on none.
func TestDumpOnRoundsOfAProgramThatTracksItself(t *testing.T) {
	tracks(t)
	t.Setenv("HEAP_MIB", roundsHeap)
	t.Setenv("COUNTER", "LEDGER=10 TRACK=opens")
	moment := &between{left: -1}
	was := groupsOf
	groupsOf = func(node checkpoint.Groups) checkpoint.Groups { moment.Groups = node; return moment }
	t.Cleanup(func() { groupsOf = was })
	a := startAgent(t)
	c := newContainer(t, "src", nil)
	c.run()
	c.counts(5)
	m := move(c, nil)
	preDump(t, a, c, m)
	moment.left, moment.call = 1, c.tracksItself // after it was looked for once, and before CRIU begins
	if _, err := a.dumps.Dump(within(t), m); !errors.Is(err, checkpoint.ErrUntracked) || !strings.Contains(err.Error(), "clear_refs") {
		t.Errorf("the dump builds on rounds without marks: %v", err)
	}
	released(t, a, c, m, c.mustRest(count{}))
	m.Epoch++
	if _, err := a.dumps.PreDump(within(t), m); !errors.Is(err, checkpoint.ErrUntracked) {
		t.Errorf("tried again: %v", err)
	}
	d, err := a.dumps.Dump(within(t), m)
	if err != nil {
		t.Fatal(err)
	}
	if all := pagesIn(t, filepath.Join(d.Dir, "main")); all < roundsPages*4096 {
		t.Errorf("%d bytes were dumped, of a heap of %d", all, roundsPages*4096)
	}
	released(t, a, c, m, c.mustRest(count{}))
}
