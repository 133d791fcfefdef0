package checkpoint

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/model"
)

// BenchmarkMove times the parts of a move, and bare runc and CRIU on the same container in
// the same run: the least of all passes, to which what else runs on the machine only adds. What
// counts are the ratios: dump/bare and restore/bare, where resume is the end of a restore. A lazy copy runs from resume on; loaded is when all of its memory is
// there, counted from there.
func BenchmarkMove(b *testing.B) {
	for _, mib := range []int{16, 64, 256, 1024} {
		for name, from := range map[string]model.Bytes{"whole": 0, "lazy": model.MiB} {
			b.Run(fmt.Sprintf("%dMiB/%s", mib, name), func(b *testing.B) {
				lazyFrom = from
				defer func() { lazyFrom = 0 }()
				b.Setenv("HEAP_MIB", fmt.Sprint(mib))
				passes(b)
			})
		}
	}
}

func passes(b *testing.B) {
	took := times{}
	n := 0
	for b.Loop() {
		n++
		ok := false
		// A benchmark has no subtests with clean-ups, a test in it has.
		t := testing.InternalTest{Name: fmt.Sprintf("%s/%d", b.Name(), n), F: func(t *testing.T) { onePass(t, took); ok = true }}
		testing.RunTests(func(_, _ string) (bool, error) { return true, nil }, []testing.InternalTest{t})
		if !ok {
			b.Fatal("the move failed")
		}
	}
	for name, all := range took {
		b.ReportMetric(float64(slices.Min(all).Microseconds())/1000, name+"-ms")
	}
	ratio := func(of time.Duration, to string) float64 { return float64(of) / float64(slices.Min(took[to])) }
	b.ReportMetric(ratio(slices.Min(took["dump"]), "bare-dump"), "dump/bare")
	b.ReportMetric(ratio(slices.Min(took["restore"])+slices.Min(took["resume"]), "bare-restore"), "restore/bare")
}

// times are how long each part took, in each pass.
type times map[string][]time.Duration

func (all times) add(name string, took time.Duration) { all[name] = append(all[name], took) }

func onePass(t *testing.T, took times) {
	timed := func(name string, f func()) {
		start := time.Now()
		f()
		took.add(name, time.Since(start))
	}
	a := startAgent(t)
	source := newContainer(t, "src", nil)
	source.run()
	last := source.next()
	for last.n < 5 {
		last = source.next()
	}
	m := move(source, nil)
	warm := func() { // the first dump reads memory and programs for the first time
		if _, err := a.dumps.Dump(within(t), m); err != nil {
			t.Fatal(err)
		}
		if err := a.dumps.Release(within(t), m); err != nil {
			t.Fatal(err)
		}
	}
	warm()
	// Bare: without Drover's options, so without its script.
	config := layout.Default.CriuConfig(source.id)
	if err := os.WriteFile(config, []byte("tcp-close\nnetwork-lock nftables\nfile-locks\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bare := "/run/bare"
	run(t, "rm", "-rf", bare)
	run(t, "mkdir", bare)
	timed("bare-dump", func() {
		run(t, "/usr/sbin/runc", "--root", runcRoot, "checkpoint", "--leave-running", "--manage-cgroups-mode", "ignore", "--image-path", bare, "--work-path", "/tmp", source.id)
	})
	restoreBare(t, "cold", bare, config, func(f func()) { f() }) // memory that is used for the first time is slow
	restoreBare(t, "bare", bare, config, func(f func()) { timed("bare-restore", f) })
	run(t, "rm", "-r", bare)
	timed("dump", func() {
		d, err := a.dumps.Dump(within(t), m)
		if err != nil {
			t.Fatal(err)
		}
		bare = d.Dir
		took.add("frozen-by-dump", time.Since(d.FrozenAt))
	})
	target := newContainer(t, "dst", map[string]string{"drover.dev/migration": m.Name})
	at := &attempt{a: a, source: source, target: target, m: move(source, target), images: bare}
	at.wait(t)
	begun(t, target) // as in a real move, where seconds pass between the create and the images
	if lazyFrom > 0 {
		spare(t)
	}
	timed("restore", func() {
		if err := a.copies.Restore(within(t), at.m, target.id, bare); err != nil {
			t.Fatal(err)
		}
		a.expect("held " + target.id)
	})
	timed("resume", func() {
		if err := a.copies.Resume(within(t), at.m, target.id, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	})
	target.started = true
	if lazyFrom > 0 {
		timed("loaded", func() {
			if err := a.copies.Loaded(within(t), at.m); err != nil {
				t.Fatal(err)
			}
		})
	}
	if err := <-at.created; err != nil {
		t.Fatal(err)
	}
	timed("end", func() {
		if err := a.dumps.End(within(t), at.m); err != nil {
			t.Fatal(err)
		}
	})
}

// restoreBare restores without Drover, has that timed, and ends what was restored.
func restoreBare(t *testing.T, name, images, config string, timed func(func())) {
	c := newContainer(t, name, nil)
	run(t, "sed", "-i", "s|/tmp/evil.conf|"+config+"|", c.bundle+"/config.json")
	cmd := c.runtime("restore", "--detach", "--bundle", c.bundle, "--image-path", images, "--work-path", "/tmp", "--manage-cgroups-mode", "ignore", c.id)
	_, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cmd.Stdout, cmd.Stderr = w, w
	timed(func() {
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
	})
	if err := c.group.Kill(within(t)); err != nil {
		t.Fatal(err)
	}
}
