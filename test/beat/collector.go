package beat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Heard is a beat with where and when it came from.
type Heard struct {
	Beat
	From netip.AddrPort
	At   time.Time
}

// Collector hears beats, by the names of the processes. Safe for concurrent use.
type Collector struct {
	conn  net.PacketConn
	mu    sync.Mutex
	heard map[uint64][]Heard
	news  chan struct{} // closed and replaced at every beat
}

// NewCollector makes a collector that hears on conn.
func NewCollector(conn net.PacketConn) *Collector {
	return &Collector{conn: conn, heard: map[uint64][]Heard{}, news: make(chan struct{})}
}

// Run hears until the connection is closed.
func (c *Collector) Run() error {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.conn.ReadFrom(buf)
		at := time.Now()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("hear beats: %w", err)
		}
		b, err := Decode(buf[:n])
		if err != nil {
			continue // somebody else's
		}
		addr := from.(*net.UDPAddr).AddrPort()
		c.mu.Lock()
		c.heard[b.Name] = append(c.heard[b.Name], Heard{b, netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), at})
		close(c.news)
		c.news = make(chan struct{})
		c.mu.Unlock()
	}
}

// Of gives what was heard of a process, in that order.
func (c *Collector) Of(name uint64) []Heard {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.heard[name])
}

// Forget drops what was heard of a process.
func (c *Collector) Forget(name uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.heard, name)
}

// Await waits for a beat of a process for which ok is true, and gives it.
func (c *Collector) Await(ctx context.Context, name uint64, what string, ok func(Heard) bool) (Heard, error) {
	seen := 0
	for {
		c.mu.Lock()
		news, all := c.news, c.heard[name]
		c.mu.Unlock()
		for ; seen < len(all); seen++ {
			if ok(all[seen]) {
				return all[seen], nil
			}
		}
		select {
		case <-news:
		case <-ctx.Done():
			return Heard{}, fmt.Errorf("process %d: %s: %d beats were heard, none was it: %w", name, what, seen, ctx.Err())
		}
	}
}

// More waits for so many beats from now on.
func (c *Collector) More(ctx context.Context, name uint64, n int) error {
	c.mu.Lock()
	from := len(c.heard[name])
	c.mu.Unlock()
	_, err := c.Await(ctx, name, fmt.Sprintf("%d more beats", n), func(Heard) bool { from--; return from+n <= 0 })
	return err
}

// Check has a process check its memory, and gives how many pages were ever found damaged.
func (c *Collector) Check(ctx context.Context, name uint64) (damaged uint64, err error) {
	last := func() (h Heard) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if all := c.heard[name]; len(all) > 0 {
			h = all[len(all)-1]
		}
		return h
	}
	number := last().Checked + 1
	for {
		h := last()
		if h.Checked >= number {
			return h.Damaged, nil
		}
		if h.Seq != 0 { // a request may be lost, and the address may change: asked again
			c.conn.WriteTo(binary.BigEndian.AppendUint64(nil, number), net.UDPAddrFromAddrPort(h.From))
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return 0, fmt.Errorf("process %d has not checked its memory: %w", name, ctx.Err())
		}
	}
}
