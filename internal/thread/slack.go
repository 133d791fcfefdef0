package thread

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Slack lets timers of the program go off up to d later than they say (prctl(2),
// PR_SET_TIMERSLACK), on every thread that it has and every one that it will have: what is due
// in the meantime is then done in one wake-up. The kernel's default is 50 µs. The capability
// CAP_SYS_NICE is needed.
func Slack(d time.Duration) error {
	value := []byte(strconv.FormatInt(d.Nanoseconds(), 10))
	done := make(map[string]bool)
	for {
		threads, err := filepath.Glob("/proc/self/task/*")
		if err != nil {
			return err
		}
		fresh := false
		for _, t := range threads {
			id := filepath.Base(t)
			if done[id] {
				continue
			}
			// A new thread has the slack of the one that starts it, so that all have it, once a look
			// finds none that is new.
			done[id], fresh = true, true
			if err := os.WriteFile(filepath.Join("/proc", id, "timerslack_ns"), value, 0); err != nil && !os.IsNotExist(err) {
				return fmt.Errorf("let timers be up to %v late: %w", d, err)
			}
		}
		if !fresh {
			return nil
		}
	}
}
