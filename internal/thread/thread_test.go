package thread

import (
	"errors"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestApart(t *testing.T) {
	for range 20 {
		// All at once, so that the main thread is wanted, too.
		const many = 50
		var all, entered sync.WaitGroup
		entered.Add(many)
		for range many {
			all.Go(func() {
				err := Apart(func() error {
					if unix.Gettid() == unix.Getpid() {
						t.Error("on the main thread")
					}
					entered.Done()
					entered.Wait()
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	want := errors.New("f's")
	if err := Apart(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("error %v, want what f gives", err)
	}
}
