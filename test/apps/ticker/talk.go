package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/drover-project/drover/test/witness"
)

// talk is a number that two tickers of a pod count up in turn, by UDP: one asks for the next
// until it is answered, the other answers what it was asked. Each knows at most one number
// that the other has not heard of, so that if either's memory is of another moment than the
// other's, one of them hears a number that cannot be.
type talk struct {
	on, ask string

	mu   sync.Mutex
	last uint64
	odd  string
}

func (c *talk) said() witness.Talk {
	c.mu.Lock()
	defer c.mu.Unlock()
	return witness.Talk{Last: c.last, Odd: c.odd}
}

// begin listens and starts to talk.
func (c *talk) begin() error {
	if c.on == "" {
		return nil
	}
	conn, err := net.ListenPacket("udp4", c.on)
	if err != nil {
		return fmt.Errorf("talk: %w", err)
	}
	if c.ask == "" {
		go c.answers(conn)
		return nil
	}
	to, err := net.ResolveUDPAddr("udp4", c.ask)
	if err != nil {
		return fmt.Errorf("talk to %q: %w", c.ask, err)
	}
	go c.asks(conn, to)
	return nil
}

// hear takes a number that has to be the last one, or the next.
func (c *talk) hear(n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n != c.last && n != c.last+1 && c.odd == "" {
		c.odd = fmt.Sprintf("heard %d after %d", n, c.last)
	}
	c.last = n
}

func (c *talk) answers(conn net.PacketConn) {
	b := make([]byte, 8)
	for {
		if n, from, err := conn.ReadFrom(b); err == nil && n == len(b) {
			c.hear(binary.BigEndian.Uint64(b))
			conn.WriteTo(b, from) // asked for again if it is lost
		}
	}
}

// asks asks for the next number every ms; what a socket holds when its process is dumped is
// lost, and an answer that came late was to a number that is known.
func (c *talk) asks(conn net.PacketConn, to net.Addr) {
	b := make([]byte, 8)
	for range time.Tick(time.Millisecond) {
		binary.BigEndian.PutUint64(b, c.said().Last+1)
		conn.WriteTo(b, to) // the other may not listen yet: asked again
		conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if n, _, err := conn.ReadFrom(b); err == nil && n == len(b) {
			c.hear(binary.BigEndian.Uint64(b))
		}
	}
}
