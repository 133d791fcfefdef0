package gossiptest

import (
	"net"
	"os"
	"sync"
	"time"
)

// stream is one end of a connection. What is written takes the link's delay, and longer for
// each time that a segment of it is lost; windows and bandwidth have no bounds.
type stream struct {
	net.Conn
	from, to *Port
	kind     string // of what was written first

	mu       sync.Mutex
	deadline time.Time // of writing
}

const (
	segment = 1448
	// segmentHeader is IP's and TCP's; packetHeader IP's and UDP's.
	segmentHeader = 40
	packetHeader  = 28
	// resend is how long TCP waits for the acknowledgement of a lone segment, at least;
	// of several, later ones tell that one is missing.
	resend = 200 * time.Millisecond
)

func (s *stream) RemoteAddr() net.Addr { return s.to.addr }

func (s *stream) SetDeadline(t time.Time) error {
	s.mu.Lock()
	s.deadline = t
	s.mu.Unlock()
	return s.Conn.SetDeadline(t)
}

func (s *stream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	s.deadline = t
	s.mu.Unlock()
	return s.Conn.SetWriteDeadline(t)
}

// opened counts the segments without payload that open and close a connection, two each from
// either side. It is called with net.mu held.
func (s *stream) opened() {
	const each = 4 * segmentHeader
	for _, p := range []*Port{s.from, s.to} {
		p.traffic.Sent += each
		p.traffic.Received += each
	}
	s.from.traffic.Streams++
	s.from.net.cfg.Kinds.add([]share{{kindHeaders, 2 * each}})
}

func (s *stream) Write(b []byte) (int, error) {
	n := s.from.net
	n.mu.Lock()
	if n.cut != nil && n.cut(s.from, s.to) {
		n.mu.Unlock()
		return 0, s.timeOut()
	}
	segments := (len(b) + segment - 1) / segment
	wait := n.delay(s.from, s.to)
	size := len(b) + segments*segmentHeader
	sent := size
	for lost := n.lost(segments); lost > 0; lost = n.lost(lost) {
		sent += lost * (segment + segmentHeader)
		if segments > 3 {
			wait += n.delay(s.to, s.from) + n.delay(s.from, s.to)
		} else {
			wait += resend
		}
	}
	s.from.traffic.Sent += sent
	s.to.traffic.Received += size
	if s.kind == "" {
		s.kind = n.cfg.Kinds.stream(b)
	}
	n.cfg.Kinds.add([]share{{s.kind, sent}})
	n.mu.Unlock()
	time.Sleep(wait)
	return s.Conn.Write(b)
}

// lost is how many of so many segments are lost.
func (n *Network) lost(segments int) int {
	lost := 0
	for range segments {
		if n.chance(n.cfg.Loss) {
			lost++
		}
	}
	return lost
}

// timeOut waits for the deadline, as who writes into a cut does sooner or later.
func (s *stream) timeOut() error {
	s.mu.Lock()
	until := time.Until(s.deadline)
	s.mu.Unlock()
	time.Sleep(until)
	return &net.OpError{Op: "write", Net: "tcp", Addr: s.to.addr, Err: os.ErrDeadlineExceeded}
}
