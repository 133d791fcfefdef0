// Package processors lets a program that mostly sleeps do so on one processor of Go's runtime, and
// work on all. With several, each wake-up wakes another thread, which looks for work and finds
// none: of an agent at rest that was a third of all it used.
package processors

import (
	"os"
	"runtime"
	"sync"
)

var (
	mu      sync.Mutex
	resting bool
	users   int
)

// Rest leaves the program one processor while nobody uses more. With GOMAXPROCS in the
// environment it does nothing.
func Rest() {
	mu.Lock()
	defer mu.Unlock()
	if os.Getenv("GOMAXPROCS") != "" {
		return
	}
	resting = true
	set()
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
