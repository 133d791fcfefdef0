package clients

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"
)

// Lines has every client send numbered lines to one who echoes them (test/apps/ticker --lines).
type Lines struct {
	Address string
	// Dial connects; nil: as any program does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Heard is how many came back, of all clients.
	Heard atomic.Int64
}

// Connect connects.
func (l *Lines) Connect(_ int, deadline time.Time) (Conn, error) {
	dial := l.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	c, err := dial(ctx, "tcp", l.Address)
	if err != nil {
		return nil, err
	}
	return &lineConn{Conn: c, in: bufio.NewReader(c), all: l}, nil
}

// Lost is nothing: who echoes keeps nothing, and says when a line is another than is due.
func (l *Lines) Lost([]int, time.Duration) (int, string, error) { return 0, "", nil }

type lineConn struct {
	net.Conn
	in  *bufio.Reader
	all *Lines
	n   int // lines on this connection
}

// Do sends the next line, and hears it.
func (c *lineConn) Do(_ int, deadline time.Time) (bool, error) {
	c.n++
	if err := c.SetDeadline(deadline); err != nil {
		return false, err
	}
	if _, err := fmt.Fprintln(c, c.n); err != nil {
		return false, err
	}
	got, err := c.in.ReadString('\n')
	if err == nil && strings.TrimSuffix(got, "\n") != fmt.Sprint(c.n) {
		err = fmt.Errorf("line %d came back as %q", c.n, got)
	}
	if err == nil {
		c.all.Heard.Add(1)
	}
	return false, err
}
