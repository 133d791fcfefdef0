package measure

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Pace has several that do something at uneven times do it at the same ones, so that the agent is
// woken once for all of them. The zero value is ready, and safe for concurrent use.
type Pace struct {
	mu sync.Mutex
	at time.Time
}

// wait is for how long to wait from now: half a pause to one and a half, until the others'
// time if that is among them.
func (p *Pace) wait(now time.Time, pause time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if until := p.at.Sub(now); until < pause/2 || until >= pause/2+pause {
		p.at = now.Add(pause/2 + rand.N(pause))
	}
	return p.at.Sub(now)
}
