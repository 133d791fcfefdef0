package checkpoint

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/layout"
)

// BenchmarkMove times the parts of a move, and bare runc and CRIU on the same container in
// the same run; what counts are the ratios: dump/bare and restore/bare, where resume
// is the end of a restore.
func BenchmarkMove(b *testing.B) {
	for _, mib := range []int{16, 256} {
		b.Run(fmt.Sprintf("%dMiB", mib), func(b *testing.B) {
			b.Setenv("HEAP_MIB", fmt.Sprint(mib))
			sum := map[string]time.Duration{}
			n := 0
			for b.Loop() {
				n++
				ok := false
				// A benchmark has no subtests with clean-ups, a test in it has.
				t := testing.InternalTest{Name: fmt.Sprint(n), F: func(t *testing.T) { onePass(t, sum); ok = true }}
				testing.RunTests(func(_, _ string) (bool, error) { return true, nil }, []testing.InternalTest{t})
				if !ok {
					b.Fatal("the move failed")
				}
			}
			for name, d := range sum {
				b.ReportMetric(float64(d.Microseconds())/1000/float64(n), name+"-ms")
			}
			b.ReportMetric(float64(sum["dump"])/float64(sum["bare-dump"]), "dump/bare")
			b.ReportMetric(float64(sum["restore"]+sum["resume"])/float64(sum["bare-restore"]), "restore/bare")
		})
	}
}

func onePass(t *testing.T, sum map[string]time.Duration) {
	timed := func(name string, f func()) {
		start := time.Now()
		f()
		sum[name] += time.Since(start)
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
	bare := "/var/lib/drover/bare"
	run(t, "rm", "-rf", bare)
	run(t, "mkdir", bare)
	timed("bare-dump", func() {
		run(t, "/usr/sbin/runc", "--root", runcRoot, "checkpoint", "--leave-running", "--manage-cgroups-mode", "ignore", "--image-path", bare, "--work-path", "/tmp", source.id)
	})
	other := newContainer(t, "bare", nil)
	run(t, "sed", "-i", "s|/tmp/evil.conf|"+config+"|", other.bundle+"/config.json")
	cmd := other.runtime("restore", "--detach", "--bundle", other.bundle, "--image-path", bare, "--work-path", "/tmp", "--manage-cgroups-mode", "ignore", other.id)
	_, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	timed("bare-restore", func() {
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
	})
	w.Close()
	timed("dump", func() {
		d, err := a.dumps.Dump(within(t), m)
		if err != nil {
			t.Fatal(err)
		}
		bare = d.Dir
		sum["frozen-by-dump"] += time.Since(d.FrozenAt)
	})
	target := newContainer(t, "dst", map[string]string{"drover.dev/migration": m.Name})
	at := &attempt{a: a, source: source, target: target, m: move(source, target), images: bare}
	at.wait(t)
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
	if err := <-at.created; err != nil {
		t.Fatal(err)
	}
	timed("end", func() {
		if err := a.dumps.End(within(t), at.m); err != nil {
			t.Fatal(err)
		}
	})
}
