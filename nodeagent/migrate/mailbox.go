package migrate

import (
	"context"
	"sync"

	"github.com/drover-project/drover/internal/handoff"
)

// letter is an event, with what the worker has to remember along with it.
type letter struct {
	event handoff.Event
	// before runs in the worker's goroutine, ahead of the event.
	before func()
}

// mailbox is a queue without a bound: whoever puts never waits.
type mailbox struct {
	mu    sync.Mutex
	queue []letter
	full  chan struct{}
}

func newMailbox() *mailbox { return &mailbox{full: make(chan struct{}, 1)} }

func (b *mailbox) put(l letter) {
	b.mu.Lock()
	b.queue = append(b.queue, l)
	b.mu.Unlock()
	select {
	case b.full <- struct{}{}:
	default:
	}
}

func (b *mailbox) empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue) == 0
}

// take gives all letters that are there, and waits for one if there is none. Once ctx has
// ended it gives none.
func (b *mailbox) take(ctx context.Context) ([]letter, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b.mu.Lock()
		all := b.queue
		b.queue = nil
		b.mu.Unlock()
		if len(all) > 0 {
			return all, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-b.full:
		}
	}
}
