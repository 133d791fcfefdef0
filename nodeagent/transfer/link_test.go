package transfer

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// link is a way to the target that can be cut, or is slow.
type link struct {
	net.Listener
	to    string
	wg    sync.WaitGroup
	mu    sync.Mutex
	left  int64 // how much passes until it is cut; negative: it is not
	conns []net.Conn
	// rate is in bytes a second, of all connections; 0: it is not slow. next is when it is free.
	rate float64
	next time.Time
}

func newLink(t testing.TB, to string, left int64, rate float64) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{Listener: l, to: to, left: left, rate: rate}
	k.wg.Go(k.serve)
	t.Cleanup(func() {
		l.Close()
		k.cut()
		k.wg.Wait()
	})
	return k
}

func (k *link) serve() {
	for {
		in, err := k.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", k.to)
		if err != nil {
			in.Close()
			continue
		}
		k.mu.Lock()
		k.conns = append(k.conns, in, out)
		k.mu.Unlock()
		k.wg.Go(func() { _, _ = io.Copy(in, out); in.Close() })
		k.wg.Go(func() { _, _ = io.Copy(io.MultiWriter(meter{k}, out), in); out.Close() })
	}
}

// cut breaks all connections.
func (k *link) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.conns {
		c.Close()
	}
	k.conns = nil
}

// meter cuts a link when enough has passed, once, and makes it slow.
type meter struct{ *link }

func (m meter) Write(b []byte) (int, error) {
	m.mu.Lock()
	was := m.left
	m.left -= int64(len(b))
	cut := was >= 0 && m.left < 0
	var wait time.Duration
	if m.rate > 0 {
		now := time.Now()
		if m.next.Before(now) {
			m.next = now
		}
		wait = m.next.Sub(now)
		m.next = m.next.Add(time.Duration(float64(len(b)) / m.rate * float64(time.Second)))
	}
	m.mu.Unlock()
	time.Sleep(wait)
	if cut {
		m.cut()
	}
	return len(b), nil
}
