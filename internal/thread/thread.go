// Package thread changes what belongs to a thread, such as the namespaces that it is in.
package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Apart calls f on a thread that ends with f and takes along what f did to it, and returns what
// f does. Goroutines that f starts are on other threads.
//
// It is never the main thread: Go does not end that one, and /proc/self shows its namespaces
// as those of the process.
func Apart(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- Apart(f) // on another one, while this one is held here
			runtime.UnlockOSThread()
			return
		}
		done <- f() // never unlocked
	}()
	return <-done
}
