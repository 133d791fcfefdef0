package thread

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSlack(t *testing.T) {
	if err := Slack(300 * time.Microsecond); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := Slack(50 * time.Microsecond); err != nil {
			t.Error(err)
		}
	}()
	threads, err := filepath.Glob("/proc/self/task/*")
	if err != nil || len(threads) < 2 {
		t.Fatalf("threads %q: %v", threads, err)
	}
	for _, dir := range threads {
		b, err := os.ReadFile(filepath.Join("/proc", filepath.Base(dir), "timerslack_ns"))
		if os.IsNotExist(err) {
			continue // it has ended
		}
		if err != nil || strings.TrimSpace(string(b)) != "300000" {
			t.Errorf("%s: slack %q (%v), want 300000", dir, b, err)
		}
	}
	for range 20 {
		if err := Apart(func() error {
			if got, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || got != 300_000 {
				t.Errorf("on a new thread: slack %d (%v), want 300000", got, err)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}
