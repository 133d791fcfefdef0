package checkpoint

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/nodeagent/checkpoint"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// move is a move of source to target, which may be nil.
func move(source, target *container) migrate.Move {
	m := migrate.Move{Namespace: "default", Name: "move-" + source.id, UID: "move-" + source.id, Epoch: 1, PostCopy: byPostCopy,
		Source:     migrate.Pod{Namespace: "default", Name: "pod-" + source.id, UID: source.podUID},
		Containers: []migrate.Container{{Name: "main", ID: source.id}}}
	m.UID = strings.ReplaceAll(m.UID, "_", "-")
	if target != nil {
		m.Target = migrate.Pod{Namespace: "default", Name: "pod-" + target.id, UID: target.podUID}
	}
	return m
}

// dumped is a container that counts, has been dumped and is held.
func dumped(t *testing.T) (*agent, *container, migrate.Move, migrate.Dumped, count) {
	t.Helper()
	a := startAgent(t)
	c := newContainer(t, "src", nil)
	c.run()
	var last count
	for last.n < 5 {
		last = c.next()
	}
	m := move(c, nil)
	d, err := a.dumps.Dump(within(t), m)
	if err != nil {
		t.Fatal(err)
	}
	// If CRIU was killed now, the processes would go on at once: with a network.
	if tables := run(t, "ip", "netns", "exec", c.id, "nft", "list", "tables"); strings.Contains(tables, "CRIU") {
		t.Errorf("the network is locked: %s", tables)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(d.Dir), layout.FrozenFile)); err != nil {
		t.Errorf("when it was stopped is not known: %v", err)
	}
	return a, c, m, d, c.mustRest(last)
}

func released(t *testing.T, a *agent, c *container, m migrate.Move, last count) {
	t.Helper()
	if err := a.dumps.Release(within(t), m); err != nil {
		t.Fatal(err)
	}
	if now := c.next(); now.n != last.n+1 {
		t.Errorf("the counter went on with %d after %d", now.n, last.n)
	}
	for range 60 { // over a look at the heap
		c.next()
	}
	if tables := run(t, "ip", "netns", "exec", c.id, "nft", "list", "tables"); strings.Contains(tables, "CRIU") {
		t.Errorf("a network lock is left behind: %s", tables)
	}
	if left, _ := os.ReadDir(layout.Default.Dumps()); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if left := find("criu"); len(left) != 0 {
		t.Errorf("CRIU is left behind: %v", left)
	}
	if err := a.dumps.Release(within(t), m); err != nil {
		t.Errorf("release again: %v", err)
	}
	if f, err := a.dumps.Inspect(within(t), m); err != nil || !f.Alive || f.Frozen || f.Dumping {
		t.Errorf("found %+v, %v", f, err)
	}
}

func ended(t *testing.T, a *agent, c *container, m migrate.Move, last count) {
	t.Helper()
	if err := a.dumps.End(within(t), m); err != nil {
		t.Fatal(err)
	}
	if n := c.alive(); n != 0 {
		t.Errorf("%d processes are left", n)
	}
	if now := c.drain(last); now != last {
		t.Errorf("the counter ran before its end: %d, then %d", last.n, now.n)
	}
	if left, _ := os.ReadDir(layout.Default.Dumps()); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if left := find("criu"); len(left) != 0 {
		t.Errorf("CRIU is left behind: %v", left)
	}
	if err := a.dumps.End(within(t), m); err != nil {
		t.Errorf("end again: %v", err)
	}
	a.expect("died " + c.id)
}

func TestAbility(t *testing.T) {
	if why := checkpoint.CannotRestore(within(t), "/usr/sbin/runc"); why != "" {
		t.Error(why)
	}
	if why := checkpoint.CannotRestore(within(t), "/usr/sbin/gone"); why == "" {
		t.Error("a node without runc can restore")
	} else {
		t.Log(why)
	}
}

func TestSource(t *testing.T) {
	deaths := map[string]func(*testing.T, *agent) *agent{
		"nobody": func(_ *testing.T, a *agent) *agent { return a },
		"script": func(t *testing.T, a *agent) *agent { kill(t, "drover-criu-hoo"); return a },
		"criu":   func(t *testing.T, a *agent) *agent { kill(t, "criu"); return a },
		"runc":   func(t *testing.T, a *agent) *agent { kill(t, "runc"); return a },
		"agent":  func(_ *testing.T, a *agent) *agent { return a.restart() },
		"all":    func(t *testing.T, a *agent) *agent { kill(t, "drover-runc"); kill(t, "criu"); return a.restart() },
	}
	ends := map[string]func(*testing.T, *agent, *container, migrate.Move, count){"release": released, "end": ended}
	for who, die := range deaths {
		for how, end := range ends {
			t.Run(who+"-dies-"+how, func(t *testing.T) {
				a, c, m, _, last := dumped(t)
				a = die(t, a)
				last = c.mustRest(last)
				if f, err := a.dumps.Inspect(within(t), m); err != nil || !f.Alive || !f.Frozen || f.Dumping {
					t.Errorf("found %+v, %v; want alive and frozen", f, err)
				}
				end(t, a, c, m, last)
			})
		}
	}
}

// TestDumpFails: a container that CRIU cannot dump runs on, and the reason is told.
func TestDumpFails(t *testing.T) {
	a := startAgent(t)
	c := newContainer(t, "src", nil)
	c.run()
	last := c.next()
	m := move(c, nil)
	m2 := m
	m2.Containers = []migrate.Container{{Name: "main", ID: "unknown"}}
	if _, err := a.dumps.Dump(within(t), m2); err == nil {
		t.Error("dumped a container that is not there")
	} else {
		t.Log(err)
	}
	run(t, "mv", "/usr/sbin/criu", "/usr/sbin/criu.away")
	_, err := a.dumps.Dump(within(t), m)
	run(t, "mv", "/usr/sbin/criu.away", "/usr/sbin/criu")
	if err == nil {
		t.Fatal("dumped without CRIU")
	}
	t.Log(err)
	for last.n < 60 {
		last = c.next()
	}
	released(t, a, c, m, last)
}

// TestNotOptedIn: without the wrapper's annotation CRIU would run without its script, so
// there is no dump.
func TestNotOptedIn(t *testing.T) {
	a := startAgent(t)
	c := newContainer(t, "src", map[string]string{"drover.dev/migrate": "false"})
	c.run()
	c.next()
	if _, err := a.dumps.Dump(within(t), move(c, nil)); err == nil || !strings.Contains(err.Error(), "opted in") {
		t.Errorf("got %v", err)
	}
	c.next()
}
