package transfer

import (
	"context"
	"errors"
	"fmt"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// Ahead sends memory of a pod that still runs, as contents without a place. When it was closed
// without an error, Follow and Send name those instead of sending them. It is for one
// goroutine.
type Ahead struct {
	session *session
	lanes   *lanes
	stop    func() bool
	left    uint64
	filled  *buffer
	used    int
}

// ErrFull says that no more can go ahead than was asked for.
var ErrFull = errors.New("as much has gone ahead as the target has room for")

// Ahead begins to send up to size bytes, and ends with ctx.
func (s *Sender) Ahead(ctx context.Context, m migrate.Move, size model.Bytes) (*Ahead, error) {
	x, err := s.session(m)
	if err != nil {
		return nil, err
	}
	if size < 0 || x.lanes != nil {
		return nil, fmt.Errorf("send %d bytes ahead of images: not a size, or they go already", size)
	}
	a := &Ahead{session: x, lanes: x.open(uint64(size), uint64(size)), left: uint64(size)}
	a.stop = context.AfterFunc(ctx, a.lanes.cancel)
	return a, nil
}

// Add takes pages, 4 KiB each, and gives how many bytes of them the target has not been sent.
func (a *Ahead) Add(memory []byte) (fresh model.Bytes, err error) {
	if len(memory)%block != 0 {
		return 0, fmt.Errorf("%d bytes are no whole number of pages", len(memory))
	}
	for ; len(memory) > 0; memory = memory[block:] {
		page := memory[:block]
		sum, zero := leaf(page)
		if zero || a.session.known(sum) {
			continue
		}
		if a.left < block {
			return fresh, ErrFull
		}
		a.session.note(sum)
		a.left -= block
		fresh += block
		if a.filled == nil {
			a.filled, a.used = takeBuffer(), 0
		}
		a.used += copy(a.filled.bytes[a.used:], page)
		if a.used == len(a.filled.bytes) {
			if err := a.flush(); err != nil {
				return fresh, err
			}
		}
	}
	a.session.count.ahead.Add(int64(fresh))
	return fresh, nil
}

// flush hands what was gathered to a stream.
func (a *Ahead) flush() error {
	b, n := a.filled, a.used
	a.filled = nil
	if b == nil {
		return nil
	}
	return a.lanes.put(job{there: func() {}, make: func(l *lane) (*agentv1.PutRequest, error) {
		defer b.free()
		m := &agentv1.Blocks{Count: uint32(n / block)}
		// What is not compressed is sent from the buffer itself, which is another's soon.
		m.Codec, m.Data = l.pack(l.packed[:copy(l.packed, b.bytes[:n])])
		return &agentv1.PutRequest{Part: &agentv1.PutRequest_Blocks{Blocks: m}}, nil
	}})
}

// Round notes that all memory has been read once more.
func (a *Ahead) Round() { a.session.count.rounds.Add(1) }

// Close returns when the target has all. After an error nothing counts as sent.
func (a *Ahead) Close() error {
	defer a.stop()
	err := a.flush()
	if lerr := a.lanes.close(); lerr != nil {
		err = lerr
	}
	if err != nil {
		a.session.forgetAhead()
		return fmt.Errorf("send memory ahead to node %s: %w", a.session.move.Target.Node, err)
	}
	return nil
}

// note remembers that the target has a content, or will have when Ahead is closed.
func (x *session) note(sum digest) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ahead[sum] = struct{}{}
}
