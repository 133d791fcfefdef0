package fabric

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkStream sends bytes over TCP through the switch; compare the two.
func BenchmarkStream(b *testing.B) {
	for name, delay := range map[string]time.Duration{"direct": 0, "5ms": 5 * time.Millisecond} {
		b.Run(name, func(b *testing.B) { benchmarkStream(b, delay) })
	}
}

func benchmarkStream(b *testing.B, delay time.Duration) {
	const chunk = 1 << 20
	from, to := newNode(b, "a", 1), newNode(b, "b", 2)
	s := New([]Port{from.port, to.port})
	set(b, s, "a", "b", delay)
	run(b, s)
	var listener net.Listener
	to.in(b, func() (err error) {
		listener, err = net.Listen("tcp4", netip.AddrPortFrom(to.addr, 0).String())
		return err
	})
	defer listener.Close()
	var conn net.Conn
	from.in(b, func() (err error) {
		conn, err = net.Dial("tcp4", listener.Addr().String())
		return err
	})
	defer conn.Close()
	got, err := listener.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer got.Close()
	go func() {
		buf := make([]byte, chunk)
		for range b.N {
			if _, err := conn.Write(buf); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, chunk)
	b.SetBytes(chunk)
	b.ResetTimer()
	for left := b.N * chunk; left > 0; {
		n, err := got.Read(buf)
		if err != nil {
			b.Fatal(err)
		}
		left -= n
	}
}

// BenchmarkIdle says what part of a CPU the process uses while three nodes say nothing.
func BenchmarkIdle(b *testing.B) {
	x, y, z := newNode(b, "a", 1), newNode(b, "b", 2), newNode(b, "c", 3)
	run(b, New([]Port{x.port, y.port, z.port}))
	time.Sleep(time.Second) // neighbour discovery is over
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	time.Sleep(2 * time.Second)
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		b.Fatal(err)
	}
	used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(100*float64(used)/float64(time.Since(start)), "%cpu")
}
