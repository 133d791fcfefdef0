package migrate

import (
	"sync"
	"time"
)

// holdings is for how long this node holds what.
type holdings struct {
	now   func() time.Time
	mu    sync.Mutex
	since map[*worker]time.Time
	past  time.Duration // of those that are over
}

// set notes whether the worker holds its container.
func (h *holdings) set(w *worker, holding bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	since, was := h.since[w]
	switch {
	case holding && !was:
		h.since[w] = h.now()
	case !holding && was:
		h.past += h.now().Sub(since)
		delete(h.since, w)
	}
}

// total is all the time that containers were held, each counted, since the agent's start.
func (h *holdings) total() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := h.past
	for _, since := range h.since {
		sum += h.now().Sub(since)
	}
	return sum
}

// longest is for how long the container has been held that is held longest now; 0: none is.
func (h *holdings) longest() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	var most time.Duration
	for _, since := range h.since {
		most = max(most, h.now().Sub(since))
	}
	return most
}

// of is since when the worker holds its container; the zero time: it does not.
func (h *holdings) of(w *worker) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.since[w]
}
