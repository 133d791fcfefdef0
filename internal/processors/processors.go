// Package processors lets a program that mostly sleeps do so on one processor of Go's runtime, and
// work on all. With several, each wake-up wakes another thread, which looks for work and finds
// none: of an agent at rest that was a third of all it used. And Go's runtime watches a program that
// works, by looking every 20 µs at first: of one that is woken for a few hundred at a time that was a
// quarter.
package processors

import (
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/drover-project/drover/internal/thread"
)

// slack is how late a timer may be: the watch then looks once where it looked five times.
const slack = time.Millisecond

var (
	mu      sync.Mutex
	resting bool
	users   int
)

// Rest leaves the program one processor while nobody uses more, unless GOMAXPROCS is in the
// environment, and lets its timers be a millisecond late. The error, of the latter alone, says that they
// are not: the program works, and wakes up more often.
func Rest() error {
	mu.Lock()
	defer mu.Unlock()
	if os.Getenv("GOMAXPROCS") == "" {
		resting = true
		set()
	}
	return thread.Slack(slack)
}

// Use gives the program all processors until done is called. A change stops the program for some
// ten microseconds.
func Use() (done func()) {
	count(1)
	return sync.OnceFunc(func() { count(-1) })
}

func count(n int) {
	mu.Lock()
	defer mu.Unlock()
	was := users
	users += n
	if resting && (was == 0) != (users == 0) {
		set()
	}
}

func set() {
	if users == 0 {
		runtime.GOMAXPROCS(1)
		return
	}
	runtime.SetDefaultGOMAXPROCS()
}
