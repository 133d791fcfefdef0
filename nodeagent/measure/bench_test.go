package measure

import (
	"fmt"
	"log/slog"
	"os"
	"path"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/pressure"
)

// What one reading of a node with 100 containers costs, each with one process that sleeps, in the
// real control groups: without memory and IO, as it is while the node does not stall for them;
// with them; and the kernel programs' tables by themselves.
func BenchmarkRead100(b *testing.B) {
	p := newPen(b, "memory", "blkio", "unified")
	names := names{}
	for i := range 100 {
		c := Container{PodUID: fmt.Sprintf("0a1b2c3d-1111-4222-8333-%012x", i), ID: fmt.Sprintf("%064x", i)}
		c.Pod = Group(path.Join(string(p.kubepods()), "burstable", "pod"+c.PodUID))
		c.Group = Group(path.Join(string(c.Pod), c.ID))
		p.make(c.Pod)
		p.make(c.Group)
		p.run(c.Group, "exec sleep 1000")
		names[c.ID] = fmt.Sprint("c", i)
	}
	meter, err := AttachWaitMeter("", slog.Default())(p.cgroups.Hierarchy())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { meter.Close() })
	for name, stalls := range map[string]bool{"at rest": false, "while the node stalls": true} {
		b.Run(name, func(b *testing.B) {
			c := NewContention(ContentionConfig{
				Cgroups: p.cgroups, Kubepods: p.kubepods(), Proc: "/proc", Interval: time.Second,
				Thresholds: pressure.Default(), Names: names, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
			})
			c.triggered = true
			now := time.Now()
			read := func() {
				now = now.Add(time.Millisecond) // so that the ten seconds are not over
				if stalls {
					c.stallUntil = now.Add(time.Second)
				}
				if err := c.read(now, meter); err != nil {
					b.Fatal(err)
				}
			}
			read()
			before := cpuUsed(b)
			for b.Loop() {
				read()
			}
			b.ReportMetric(float64((cpuUsed(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
			if got := len(c.Snapshot().Containers); got != 100 {
				b.Fatalf("%d containers, want 100", got)
			}
		})
	}
	b.Run("kernel tables", func(b *testing.B) {
		before := cpuUsed(b)
		for b.Loop() {
			if _, err := meter.Read(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64((cpuUsed(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
	})
}

// cpuUsed is the CPU time of this process, which other work on the machine does not lengthen as it
// does the time by the clock.
func cpuUsed(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
