package transfer

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/drover-project/drover/nodeagent/migrate"
)

// count is what one transfer has done so far.
type count struct {
	// done of the images' bytes; wire is what all messages took; ahead of memory before the
	// freeze, in rounds.
	done, wire atomic.Uint64
	ahead      atomic.Int64
	rounds     atomic.Int32

	mu    sync.Mutex
	total uint64 // 0: not known yet
	// marks are how far it was at some moments of late.
	marks []mark
}

type mark struct {
	at   time.Time
	work float64
}

// span is how far back a rate looks.
const span = 3 * time.Second

func (c *count) begin(total uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total = total
}

// progress is how far it is at now. The first time there is no rate.
func (c *count) progress(now time.Time) migrate.Progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := migrate.Progress{
		Ahead: c.ahead.Load(), Rounds: int(c.rounds.Load()),
		Sent: int64(c.done.Load()), Total: int64(c.total), Wire: int64(c.wire.Load()),
	}
	for len(c.marks) > 1 && now.Sub(c.marks[1].at) >= span {
		c.marks = c.marks[1:]
	}
	c.marks = append(c.marks, mark{now, float64(p.Ahead + p.Sent)})
	first, last := c.marks[0], c.marks[len(c.marks)-1]
	if took := last.at.Sub(first.at).Seconds(); took > 0 && last.work > first.work {
		p.Rate = (last.work - first.work) / took
		if p.Total > p.Sent {
			p.Left = time.Duration(float64(p.Total-p.Sent) / p.Rate * float64(time.Second))
		}
	}
	return p
}

// Progress tells how far the transfer of a move's images is; nil: nothing is being sent.
func (s *Sender) Progress(m migrate.Move) *migrate.Progress {
	name, err := moveDir(m)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	x := s.sessions[name]
	s.mu.Unlock()
	if x == nil {
		return nil
	}
	p := x.count.progress(time.Now())
	return &p
}
