package fabric

import (
	"sync/atomic"
	"time"
)

const (
	// mtu of every port, bytes of payload.
	mtu = 1500
	// frameSize holds a frame of that mtu with its header and a VLAN tag.
	frameSize = 2048
	// headerSize is the least a frame has: two addresses and a type.
	headerSize = 14
	// linkQueue is how many frames may be on their way between two ports, one way:
	// 6 MB, so 60 MB/s at a delay of 100 ms.
	linkQueue = 4096
)

// frame is one Ethernet frame on its way; refs counts who still needs it: its reader and the
// links that it is queued on.
type frame struct {
	data [frameSize]byte
	n    int
	refs int
}

// link is one direction of one pair of ports. Its queue belongs to the running loop; the
// rest may be used by anybody.
type link struct {
	delay                                   atomic.Int64  // nanoseconds, negative when cut
	loss                                    atomic.Uint64 // the bits of a float64: how likely a frame is lost
	frames, bytes, full, cut, lost, refused atomic.Uint64

	// A ring of frames in the order of their deadlines, which is the order of arrival.
	queue []flight
	head  int
	count int
}

// flight is one frame on one link, due at a time since the loop's start.
type flight struct {
	frame *frame
	due   time.Duration
}

// push queues the frame, and tells whether there was room. A link never reorders: after its
// delay has been lowered, new frames wait for those that are on their way.
func (l *link) push(f *frame, due time.Duration) bool {
	if l.count == linkQueue {
		l.full.Add(1)
		return false
	}
	if l.count > 0 {
		due = max(due, l.at(l.count-1).due)
	}
	if l.count == len(l.queue) {
		l.grow()
	}
	*l.at(l.count) = flight{f, due}
	l.count++
	f.refs++
	return true
}

// pop takes the oldest frame.
func (l *link) pop() *frame {
	at := l.at(0)
	f := at.frame
	at.frame = nil
	l.head = (l.head + 1) % len(l.queue)
	l.count--
	return f
}

func (l *link) at(i int) *flight { return &l.queue[(l.head+i)%len(l.queue)] }

func (l *link) grow() {
	bigger := make([]flight, max(16, 2*len(l.queue)))
	for i := range l.count {
		bigger[i] = *l.at(i)
	}
	l.queue, l.head = bigger, 0
}
