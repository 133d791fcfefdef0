package checkpoint

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/nodeagent/migrate"
)

var names = []string{"app", "proxy"}

// newPod makes two containers of one pod in one network namespace.
func newPod(t *testing.T, name string, annotations map[string]string) []*container {
	t.Helper()
	var all []*container
	for _, n := range names {
		more := map[string]string{"io.kubernetes.cri.container-name": n}
		for k, v := range annotations {
			more[k] = v
		}
		if len(all) > 0 {
			more["io.kubernetes.cri.sandbox-uid"] = all[0].podUID
		}
		c := newContainer(t, name+"-"+n, more, func(_ string, spec map[string]any) {
			if len(all) > 0 {
				spaces := spec["linux"].(map[string]any)["namespaces"].([]map[string]string)
				spaces[len(spaces)-1]["path"] = "/run/netns/" + all[0].id
			}
		})
		if len(all) > 0 {
			c.podUID = all[0].podUID
		}
		all = append(all, c)
	}
	return all
}

// dumpedPod is a pod of two containers that count, has been dumped and is held.
func dumpedPod(t *testing.T) (*agent, []*container, migrate.Move, migrate.Dumped, []count) {
	t.Helper()
	a := startAgent(t)
	pod := newPod(t, "src", nil)
	last := make([]count, len(pod))
	for i, c := range pod {
		c.run()
		for last[i].n < 5 {
			last[i] = c.next()
		}
	}
	m := move(pod[0], nil)
	m.Containers = nil
	for i, c := range pod {
		m.Containers = append(m.Containers, migrate.Container{Name: names[i], ID: c.id})
	}
	d, err := a.dumps.Dump(within(t), m)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range pod {
		last[i] = c.mustRest(last[i])
	}
	if f, err := a.dumps.Inspect(within(t), m); err != nil || !f.Alive || !f.Frozen || f.Short || f.Dumping {
		t.Errorf("found %+v, %v; want all alive and frozen", f, err)
	}
	return a, pod, m, d, last
}

// TestSourceSeveralReleased: containers that were frozen before CRIU came run on afterwards.
func TestSourceSeveralReleased(t *testing.T) {
	for who, die := range map[string]func(*agent) *agent{
		"nobody": func(a *agent) *agent { return a },
		"criu":   func(a *agent) *agent { kill(t, "criu"); return a },
		"agent":  func(a *agent) *agent { return a.restart() },
	} {
		t.Run(who+"-dies", func(t *testing.T) {
			a, pod, m, _, last := dumpedPod(t)
			a = die(a)
			for i, c := range pod {
				last[i] = c.mustRest(last[i])
			}
			if err := a.dumps.Release(within(t), m); err != nil {
				t.Fatal(err)
			}
			for i, c := range pod {
				if now := c.next(); now.n != last[i].n+1 {
					t.Errorf("%s went on with %d after %d", c.id, now.n, last[i].n)
				}
			}
			if left, _ := os.ReadDir(layout.Default.Dumps()); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
			if left := find("criu"); len(left) != 0 {
				t.Errorf("CRIU is left behind: %v", left)
			}
		})
	}
}

// TestTargetOfSeveral: the first copy is passed, so that the next create comes, and stays frozen;
// the last lets both go on.
func TestTargetOfSeveral(t *testing.T) {
	a, source, m, d, last := dumpedPod(t)
	images := filepath.Join(layout.Default.Images(), m.UID+"-1")
	if err := os.CopyFS(images, os.DirFS(d.Dir)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(images) })
	target := newPod(t, "dst", map[string]string{"drover.dev/migration": m.Name})
	m.Target = migrate.Pod{Namespace: "default", Name: "pod-dst", UID: target[0].podUID}
	waiting := func(c *container) chan error {
		_, wait := c.create()
		created := make(chan error, 1)
		go func() { created <- wait() }()
		a.expect("waits " + c.id)
		if err := a.copies.Restore(within(t), m, c.id, images); err != nil {
			t.Fatal(err)
		}
		a.expect("held " + c.id)
		return created
	}
	app, proxy := target[0], target[1]
	created := waiting(app)
	if err := a.copies.Pass(within(t), m, app.id); err != nil {
		t.Fatal(err)
	}
	if err := <-created; err != nil {
		t.Fatalf("the create of a copy that was passed: %v: %s", err, app.log())
	}
	app.start()
	app.refuses(t, "not let run yet")
	a = a.restart()
	created = waiting(proxy)
	if now := app.drain(count{}); now.n != 0 {
		t.Errorf("the copy that was passed counts: %d", now.n)
	}
	c, err := a.copies.Inspect(within(t), m)
	if err != nil || c.ID != proxy.id || !c.Held || len(c.Passed) != 1 || c.Passed[0].Name != "app" || !c.Passed[0].Alive || !c.Passed[0].Frozen {
		t.Fatalf("found %+v, %v", c, err)
	}
	marked := 0
	if err := a.copies.Resume(within(t), m, proxy.id, func() error { marked++; return nil }); err != nil || marked != 1 {
		t.Fatalf("resume: %v, marked %d times", err, marked)
	}
	if err := <-created; err != nil {
		t.Fatalf("create: %v: %s", err, proxy.log())
	}
	proxy.start()
	for i, c := range target {
		if first := c.next(); first.n != last[i].n+1 {
			t.Errorf("%s went on with %d after %d", c.id, first.n, last[i].n)
		}
		for range 60 { // over a look at the heap
			c.next()
		}
	}
	if err := a.dumps.End(within(t), m); err != nil {
		t.Fatal(err)
	}
	for i, c := range source {
		if now := c.drain(last[i]); now != last[i] {
			t.Errorf("%s ran: %d, then %d", c.id, last[i].n, now.n)
		}
	}
	// One that crashes later does not harm the other.
	if out, err := app.runtime("kill", app.id, "KILL").CombinedOutput(); err != nil {
		t.Fatalf("kill: %v: %s", err, out)
	}
	a.expect("died " + app.id)
	proxy.next()
}

// TestTargetSeveralKilled: a move that is aborted between two creates leaves nothing.
func TestTargetSeveralKilled(t *testing.T) {
	a, source, m, d, last := dumpedPod(t)
	images := filepath.Join(layout.Default.Images(), m.UID+"-1")
	if err := os.CopyFS(images, os.DirFS(d.Dir)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(images) })
	target := newPod(t, "dst", map[string]string{"drover.dev/migration": m.Name})
	m.Target = migrate.Pod{Namespace: "default", Name: "pod-dst", UID: target[0].podUID}
	_, wait := target[0].create()
	a.expect("waits " + target[0].id)
	if err := a.copies.Restore(within(t), m, target[0].id, images); err != nil {
		t.Fatal(err)
	}
	a.expect("held " + target[0].id)
	if err := a.copies.Pass(within(t), m, target[0].id); err != nil {
		t.Fatal(err)
	}
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	if err := a.copies.Kill(within(t), m); err != nil {
		t.Fatal(err)
	}
	if n := target[0].alive(); n != 0 {
		t.Errorf("%d processes of the copy are left", n)
	}
	if now := target[0].drain(count{}); now.n != 0 {
		t.Errorf("the copy counted: %d", now.n)
	}
	if c, err := a.copies.Inspect(within(t), m); err != nil || c.Alive || len(c.Passed) != 0 {
		t.Errorf("found %+v, %v; want nothing", c, err)
	}
	if err := a.dumps.Release(within(t), m); err != nil {
		t.Fatal(err)
	}
	for i, c := range source {
		if now := c.next(); now.n != last[i].n+1 {
			t.Errorf("%s went on with %d after %d", c.id, now.n, last[i].n)
		}
	}
}
