// Command threads is a multi-threaded program that Drover moves in its tests: every thread
// adds to words of memory that all of them share, and keeps its own count. What must be in
// the memory follows from the counts, so that one lost or doubled addition, one thread that
// is lost, and one that is another than before, shows in the ticks that it sends to a
// witness.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/test/witness"
)

func main() {
	n := flag.Int("threads", 64, "threads")
	mib := flag.Int("shared-mib", 8, "size of the shared memory in MiB")
	instance := flag.String("instance", "threads", "name in the ticks; the process's number of start is added")
	to := flag.String("witness", "", "host:port (UDP) that every tick is sent to")
	flag.Parse()
	if err := run(*n, *mib<<20, fmt.Sprintf("%s-%d", *instance, time.Now().UnixNano()), *to); err != nil {
		log.Fatalf("threads: %v", err)
	}
}

// crew is the threads and what they share.
type crew struct {
	words []uint64 // shared memory
	count []uint64 // additions, by thread
	// worked gets a value from its thread after it has added, if it has none yet.
	worked []chan struct{}
	// pause is held by every thread while it adds, and by who sums up.
	pause sync.RWMutex
	fault atomic.Pointer[string]
}

func run(n, size int, instance, to string) error {
	// Shared and anonymous: the kernel keeps it as a file of its own, not as the process's heap.
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("map %d bytes of shared memory: %w", size, err)
	}
	c := &crew{words: unsafe.Slice((*uint64)(unsafe.Pointer(&mem[0])), size/8), count: make([]uint64, n)}
	for i := range c.count {
		c.worked = append(c.worked, make(chan struct{}, 1))
		go c.work(i, c.worked[i])
	}
	return c.tick(instance, to)
}

// work is one thread's: it adds the numbers 1, 2, 3 ... to words all over the memory.
func (c *crew) work(i int, worked chan<- struct{}) {
	runtime.LockOSThread()
	self := unix.Gettid()
	at := uint64(i + 1)
	for {
		c.pause.RLock()
		for range 64 {
			c.count[i]++
			at = at*6364136223846793005 + 1442695040888963407
			atomic.AddUint64(&c.words[at%uint64(len(c.words))], c.count[i])
		}
		c.pause.RUnlock()
		select {
		case worked <- struct{}{}:
		default:
		}
		if now := unix.Gettid(); now != self {
			s := fmt.Sprintf("thread %d had the number %d and has %d", i, self, now)
			c.fault.Store(&s)
		}
		// The thread itself sleeps, not only its goroutine.
		ts := unix.NsecToTimespec(int64(20 * time.Millisecond))
		_ = unix.Nanosleep(&ts, nil)
	}
}

// sums gives what is in the memory and what must be.
func (c *crew) sums() (is, want uint64) {
	c.pause.Lock()
	defer c.pause.Unlock()
	for _, w := range c.words {
		is += w
	}
	for _, n := range c.count {
		want += n * (n + 1) / 2
	}
	return is, want
}

// tick sends a tick every 20 ms. Every fiftieth waits until each thread has worked since the
// last such one, and sums the memory up.
func (c *crew) tick(instance, to string) error {
	addr, err := net.ResolveUDPAddr("udp4", to)
	if err != nil {
		return fmt.Errorf("witness %q: %w", to, err)
	}
	conn, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		return err
	}
	t := witness.Tick{Instance: instance}
	for range time.NewTicker(20 * time.Millisecond).C {
		t.Seq++
		if t.Seq%50 == 0 {
			for _, w := range c.worked {
				<-w
			}
			is, want := c.sums()
			t.Now = is - want
		}
		if f := c.fault.Load(); f != nil {
			fmt.Fprintln(os.Stderr, *f)
			t.Now = 1
		}
		b, err := json.Marshal(t)
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo(b, addr); err != nil {
			log.Printf("tick %d to %s: %v", t.Seq, addr, err)
		}
	}
	return nil
}
