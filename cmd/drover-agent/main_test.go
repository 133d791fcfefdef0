package main

import (
	"context"
	"testing"
	"testing/synctest"
)

// The companion runs without flags, files or an API server, until it is told to end.
func TestPathWaitsForItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := command()
		c.SetArgs([]string{"path"})
		ended := make(chan error, 1)
		go func() { ended <- c.ExecuteContext(ctx) }()
		synctest.Wait()
		if len(ended) > 0 {
			t.Fatalf("it has ended by itself: %v", <-ended)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
