// Command beat sends beats and rewrites its memory; see test/beat.
package main

import (
	"crypto/rand"
	"encoding/binary"
	"flag"
	"log"
	"net"
	"sync/atomic"
	"time"

	"github.com/drover-project/drover/test/beat"
)

func main() {
	name := flag.Uint64("name", 0, "name in the beats")
	to := flag.String("to", "", "host:port (UDP) of the collector")
	every := flag.Duration("every", time.Millisecond, "time between beats")
	mib := flag.Int("mib", 16, "size of the memory in MiB; all of it is written before the first beat")
	dirty := flag.Float64("dirty", 0, "MiB of it that are written anew every second, page by page in turn")
	random := flag.Float64("random", .3, "share of it that cannot be compressed")
	flag.Parse()
	if err := run(*name, *to, *every, *mib, *dirty, *random); err != nil {
		log.Fatalf("beat: %v", err)
	}
}

func run(name uint64, to string, every time.Duration, mib int, dirty, random float64) error {
	addr, err := net.ResolveUDPAddr("udp4", to)
	if err != nil {
		return err
	}
	// Not connected: a connected socket would be tied to the old address.
	conn, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		return err
	}
	memory, err := beat.NewMemory(mib, random)
	if err != nil {
		return err
	}
	var asked atomic.Uint64
	go hear(conn, &asked)
	b := beat.Beat{Name: name, Start: number()}
	last, due := time.Now(), 0.
	for now := range time.Tick(every) {
		// What could not be written while there was no CPU is not made up for at once.
		passed := min(now.Sub(last), 20*every)
		last = now
		due += passed.Seconds() * dirty * (1 << 20) / beat.PageSize
		memory.Write(int(due))
		due -= float64(int(due))
		if n := asked.Load(); n > b.Checked {
			b.Damaged += uint64(memory.Check())
			b.Checked = n
		}
		b.Seq++
		conn.WriteTo(b.Encode(), addr) // a beat that cannot be sent is a beat that is not heard
	}
	return nil
}

// hear takes the numbers of checks that the collector asks for.
func hear(conn net.PacketConn, asked *atomic.Uint64) {
	request := make([]byte, 8)
	for {
		if n, _, err := conn.ReadFrom(request); err == nil && n == len(request) {
			asked.Store(binary.BigEndian.Uint64(request))
		}
	}
}

func number() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}
