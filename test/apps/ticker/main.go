// CRIU cannot dump MPTCP sockets, and Go's net package listens with MPTCP by default:
// hence the directive.
//
//go:debug multipathtcp=0

// Command ticker is the work that Drover moves in its tests and its demo: a process with
// a random heap, a checksum over it, and a counter that it sends to a witness tick by
// tick. If one byte of the heap is lost, if a tick is lost or comes twice, if two copies
// run at once: the witness knows.
//
// "ticker spin" is the noisy neighbour; "ticker get URL" prints what is at the URL, "ticker ask URL" asks for it
// again and again, over one connection.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/drover-project/drover/test/witness"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "spin" {
		spin(os.Args[2:])
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "ask" {
		ask(os.Args[2])
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "get" {
		get(os.Args[2])
		return
	}
	heap := flag.Int("heap-mib", 64, "size of the random heap in MiB")
	to := flag.String("witness", "", "host:port (UDP) that every tick is sent to; empty: nobody")
	every := flag.Duration("every", 20*time.Millisecond, "time between ticks")
	work := flag.Duration("work", 0, "CPU time burnt in every tick")
	listen := flag.String("listen", ":8080", "address of the HTTP status")
	ticks := flag.Uint64("ticks", 0, "end well after so many ticks; 0: never")
	var c talk
	flag.StringVar(&c.on, "talk-on", "", "host:port (UDP) to talk with another ticker on; empty: no talk")
	flag.StringVar(&c.ask, "ask", "", "host:port (UDP) of the other ticker, by the one of the two that asks")
	lines := flag.String("lines", "", "host:port (TCP) to echo numbered lines on; empty: none")
	written := flag.String("journal", "", "file that every tick is written to; empty: none")
	flag.Parse()
	t, err := newTicker(*heap, *to)
	if err != nil {
		log.Fatalf("ticker: %v", err)
	}
	if err := c.begin(); err != nil {
		log.Fatalf("ticker: %v", err)
	}
	if err := echo(*lines); err != nil {
		log.Fatalf("ticker: %v", err)
	}
	if t.journal, err = openJournal(*written); err != nil {
		log.Fatalf("ticker: %v", err)
	}
	go t.serve(*listen, &c)
	log.Printf("instance %s: heap %d MiB, checksum %016x", t.instance, *heap, t.sum)
	t.run(*every, *work, *ticks)
}

type ticker struct {
	instance string // random at start: a copy that started anew has another
	heap     []byte
	sum      uint64 // of the heap at start
	now      atomic.Uint64
	seq      atomic.Uint64
	conn     net.PacketConn
	to       net.Addr
	journal  journal
}

func newTicker(mib int, to string) (*ticker, error) {
	t := &ticker{heap: make([]byte, mib<<20)}
	if _, err := rand.Read(t.heap); err != nil {
		return nil, err
	}
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return nil, err
	}
	t.instance, t.sum = hex.EncodeToString(id), checksum(t.heap)
	t.now.Store(t.sum)
	if to == "" {
		return t, nil
	}
	addr, err := net.ResolveUDPAddr("udp4", to)
	if err != nil {
		return nil, fmt.Errorf("witness %q: %w", to, err)
	}
	// Not connected: a connected socket would be tied to the old pod's address.
	t.conn, err = net.ListenPacket("udp4", "0.0.0.0:0")
	t.to = addr
	return t, err
}

// run ticks so often, or for ever. A slice of the heap is summed in every tick, the whole of it within
// 50 ticks, so that damage shows soon.
func (t *ticker) run(every, work time.Duration, ticks uint64) {
	const slices = 50
	part := (len(t.heap) + slices - 1) / slices
	h, at := fnv.New64a(), 0
	tick := time.NewTicker(every)
	for range tick.C {
		burn(work)
		end := min(at+part, len(t.heap))
		h.Write(t.heap[at:end])
		if at = end; at == len(t.heap) {
			t.now.Store(h.Sum64())
			h.Reset()
			at = 0
		}
		seq := t.seq.Add(1)
		if err := t.journal.write(seq); err != nil {
			log.Printf("tick %d to the journal: %v", seq, err)
		}
		if t.send(seq); seq == ticks {
			return
		}
	}
}

func (t *ticker) send(seq uint64) {
	if t.conn == nil {
		return
	}
	b, err := json.Marshal(witness.Tick{Instance: t.instance, Seq: seq, Start: t.sum, Now: t.now.Load()})
	if err != nil {
		log.Fatalf("ticker: encode tick: %v", err)
	}
	if _, err := t.conn.WriteTo(b, t.to); err != nil {
		log.Printf("tick %d to %s: %v", seq, t.to, err)
	}
}

func (t *ticker) serve(addr string, c *talk) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(witness.Tick{Instance: t.instance, Seq: t.seq.Load(), Start: t.sum, Now: checksum(t.heap)})
	})
	mux.HandleFunc("GET /talk", func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(c.said()) })
	mux.HandleFunc("GET /journal", func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(t.journal.said()) })
	mux.HandleFunc("GET /log", func(_ http.ResponseWriter, r *http.Request) { log.Print(r.URL.Query().Get("line")) })
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /done", func(http.ResponseWriter, *http.Request) { os.Exit(0) })
	mux.HandleFunc("POST /crash", func(http.ResponseWriter, *http.Request) { os.Exit(1) })
	log.Fatal(http.ListenAndServe(addr, mux))
}

func checksum(b []byte) uint64 {
	h := fnv.New64a()
	h.Write(b)
	return h.Sum64()
}

// burn uses the CPU for d of wall time.
func burn(d time.Duration) {
	var x uint64
	for start := time.Now(); time.Since(start) < d; {
		x = x*6364136223846793005 + 1442695040888963407
	}
	sink.Store(x)
}

var sink atomic.Uint64

func get(url string) {
	resp, err := http.Get(url)
	if err != nil {
		log.Fatalf("ticker: %v", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
		log.Fatalf("ticker: read %s: %v", url, err)
	}
}

func ask(url string) {
	for ; ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get(url)
		if err != nil {
			log.Printf("ask: %v", err)
			continue
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if resp.Body.Close(); err != nil {
			log.Printf("ask: read %s: %v", url, err)
		}
	}
}

func spin(args []string) {
	fs := flag.NewFlagSet("spin", flag.ExitOnError)
	threads := fs.Int("threads", 4, "threads that never sleep")
	fs.Parse(args)
	runtime.GOMAXPROCS(*threads)
	for range *threads {
		go func() {
			for {
				burn(time.Second)
			}
		}()
	}
	select {}
}
