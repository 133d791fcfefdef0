package conversation

import (
	"net"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// BenchmarkConnection gives the time that the program on the tracepoint runs, for all the
// changes of state of both ends of one connection.
func BenchmarkConnection(b *testing.B) {
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		b.Fatal(err)
	}
	defer stats.Close()
	h := hosts(b, 0, "a", "b")
	m := meter(b, Tracepoint, 0, "").meter
	l := h[1].listen(b, h[1].v4)
	for b.Loop() {
		client, server := h[0].dial(b, h[0].v4, l)
		say(b, client, server, 100)
		client.Close()
		server.Close()
	}
	ran, err := m.collection.Programs["inet_sock_set_state"].Stats()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(ran.Runtime.Nanoseconds())/float64(b.N), "ns-in-kernel/connection")
	b.ReportMetric(float64(ran.RunCount)/float64(b.N), "runs/connection")
}

// BenchmarkRead gives the time that a reading takes in the kernel for each open connection of
// which it has something to tell, and for each that was silent.
func BenchmarkRead(b *testing.B) {
	const many = 500
	for name, busy := range map[string]bool{"silent": false, "busy": true} {
		b.Run(name, func(b *testing.B) {
			stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
			if err != nil {
				b.Fatal(err)
			}
			defer stats.Close()
			h := hosts(b, 0, "a", "b")
			m := meter(b, Tracepoint, 0, "")
			l := h[1].listen(b, h[1].v4)
			var ends [][2]*net.TCPConn
			for range many {
				client, server := h[0].dial(b, h[0].v4, l)
				for _, c := range []*net.TCPConn{client, server} {
					if err := c.SetDeadline(time.Time{}); err != nil {
						b.Fatal(err)
					}
				}
				ends = append(ends, [2]*net.TCPConn{client, server})
			}
			m.read(b)
			report := m.meter.collection.Programs["report"]
			before, err := report.Stats()
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if busy {
					b.StopTimer()
					for _, e := range ends {
						say(b, e[0], e[1], 1)
					}
					b.StartTimer()
				}
				m.read(b)
			}
			after, err := report.Stats()
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64((after.Runtime-before.Runtime).Nanoseconds())/float64(after.RunCount-before.RunCount), "ns-in-kernel/connection")
		})
	}
}
