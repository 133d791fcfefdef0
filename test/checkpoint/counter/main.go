// CRIU cannot dump MPTCP sockets, and Go's net package listens with MPTCP by default.
//
//go:debug multipathtcp=0

// Command counter is what the tests of checkpoint and restore move: it counts, keeps a
// random heap and looks after it, listens, echoes, and writes a line for every count. With SHARED=1 it
// shares memory with a child, with RESTLESS=1 some of its memory does not stay where it is, with
// TELL=1 it looks at another page for every count, with LEDGER=N it writes N pages of its heap anew
// for every count, with LATE=1 it starts a child when there is a file /fork, with TRACK=1 it
// has the file open by which a program tracks what it writes to, with TRACK=opens it opens it when there is
// a file /track, with TRACK=later it also clears the marks then, for every count.
package main

import (
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"time"
)

func main() {
	if os.Getenv("SHARED") == "child" {
		countInShared()
	}
	mib := number("HEAP_MIB")
	var more []interface{ intact() bool }
	if os.Getenv("TELL") != "" {
		t, err := newTold(mib)
		check(err)
		more, mib = append(more, t), 0
	}
	if os.Getenv("LEDGER") != "" {
		l, err := newLedger(mib, number("LEDGER"))
		check(err)
		more, mib = append(more, l), 0
	}
	if os.Getenv("LATE") != "" {
		more = append(more, &late{file: "/fork", begin: func() (interface{ intact() bool }, error) { return share() }})
	}
	switch os.Getenv("TRACK") {
	case "1":
		track()
	case "later", "opens":
		clears := os.Getenv("TRACK") == "later"
		more = append(more, &late{file: "/track", begin: func() (interface{ intact() bool }, error) { track(); return tracking{clears}, nil }})
	}
	heap := make([]byte, mib<<20)
	random := rand.NewChaCha8([32]byte{})
	random.Read(heap)
	want := sum(heap)
	if l, err := net.Listen("tcp", ":8080"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		go accept(l)
	}
	if os.Getenv("SHARED") != "" {
		s, err := share()
		more = append(more, s)
		check(err)
	}
	if os.Getenv("RESTLESS") != "" {
		r, err := newRestless()
		more = append(more, r)
		check(err)
	}
	if err := echo(":8081"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	for i := 0; ; i++ {
		intact := i%50 != 0 || sum(heap) == want
		for _, m := range more {
			intact = m.intact() && intact
		}
		fmt.Println(i, intact, time.Now().UnixMicro())
		time.Sleep(10 * time.Millisecond)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// countInShared counts in memory that is shared by descriptor 3, faster than its parent looks.
func countInShared() {
	word, err := mapped(3)
	check(err)
	for {
		word.Add(1)
		time.Sleep(time.Millisecond)
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

// echo sends back what comes by TCP and UDP.
func echo(at string) error {
	l, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	p, err := net.ListenPacket("udp", at)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := p.ReadFrom(buf)
			if err == nil {
				_, _ = p.WriteTo(buf[:n], from)
			}
		}
	}()
	return nil
}

func sum(b []byte) uint64 {
	h := fnv.New64a()
	h.Write(b)
	return h.Sum64()
}
