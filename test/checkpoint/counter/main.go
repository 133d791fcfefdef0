// CRIU cannot dump MPTCP sockets, and Go's net package listens with MPTCP by default.
//
//go:debug multipathtcp=0

// Command counter is what the tests of checkpoint and restore move: it counts, keeps a
// random heap and looks after it, listens, and writes a line for every count.
package main

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"time"
)

func main() {
	mib, _ := strconv.Atoi(os.Getenv("HEAP_MIB"))
	heap := make([]byte, mib<<20)
	random := rand.NewChaCha8([32]byte{})
	random.Read(heap)
	want := sum(heap)
	if l, err := net.Listen("tcp", ":8080"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		go accept(l)
	}
	for i := 0; ; i++ {
		intact := i%50 != 0 || sum(heap) == want
		fmt.Println(i, intact, time.Now().UnixMicro())
		time.Sleep(10 * time.Millisecond)
	}
}

func accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			for {
				if _, err := fmt.Fprintln(c, "hello"); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
	}
}

func sum(b []byte) uint64 {
	h := fnv.New64a()
	h.Write(b)
	return h.Sum64()
}
