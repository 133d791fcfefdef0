package podlog

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/health"
)

// BenchmarkAtRest is a round over 100 containers that write nothing.
func BenchmarkAtRest(b *testing.B) {
	root := b.TempDir()
	var all []Container
	for i := range 100 {
		c := web(fmt.Sprint("c", i))
		path := filepath.Join(root, Dir, c.path())
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			b.Fatal(err)
		}
		all = append(all, c)
	}
	f := New(Config{HostRoot: root, Containers: func() []Container { return all }, Log: slog.New(slog.DiscardHandler)})
	defer f.closeAll()
	for b.Loop() {
		if err := f.round(t0); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFlood is a round beside a container that has just written 64 MiB; worst has the pattern
// that costs most.
func BenchmarkFlood(b *testing.B) {
	for name, pattern := range map[string]string{"usual": "timeout|deadline exceeded", "worst": `(?i)(.*\w.*){28}!`} {
		b.Run(name, func(b *testing.B) {
			re, err := health.Compile(pattern)
			if err != nil {
				b.Fatal(err)
			}
			root, c := b.TempDir(), web("app")
			c.Pattern = re
			path := filepath.Join(root, Dir, c.path())
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				b.Fatal(err)
			}
			line := stamp + "stdout F " + strings.Repeat("xa ", 60) + "\n"
			if err := os.WriteFile(path, []byte(strings.Repeat(line, 64<<20/len(line))), 0o600); err != nil {
				b.Fatal(err)
			}
			f := New(Config{HostRoot: root, Containers: func() []Container { return []Container{c} }, Log: slog.New(slog.DiscardHandler)})
			defer f.closeAll()
			if err := f.round(t0); err != nil {
				b.Fatal(err)
			}
			runtime.LockOSThread() // as Run does: CPU time is the thread's
			defer runtime.UnlockOSThread()
			var spent time.Duration
			for b.Loop() {
				before := f.spent
				f.followed[c.key()].file.at = 0
				if err := f.round(t0); err != nil {
					b.Fatal(err)
				}
				spent += f.spent - before
			}
			b.ReportMetric(spent.Seconds()*1000/float64(b.N), "cpu-ms/round")
		})
	}
}
