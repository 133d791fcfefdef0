package clients

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"time"
)

// Lines has every client send numbered lines to one who echoes them (test/apps/ticker --lines).
type Lines struct {
	Address string
	Dial    Dial
}

// Connect connects.
func (l *Lines) Connect(_ int, deadline time.Time) (Conn, error) {
	c, err := l.Dial.to(l.Address, deadline)
	if err != nil {
		return nil, err
	}
	return &lineConn{Conn: c, in: bufio.NewReader(c)}, nil
}

// Lost is nothing: who echoes keeps nothing, and says when a line is another than is due.
func (l *Lines) Lost([]int, time.Duration) (int, string, error) { return 0, "", nil }

type lineConn struct {
	net.Conn
	in *bufio.Reader
	n  int // lines on this connection
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
	return false, err
}
