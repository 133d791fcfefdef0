package transfer

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
)

// heap looks like the memory of a program: words, numbers and pointers, and a quarter of zeros.
func heap(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, n+block)
	for len(b) < n {
		if r.IntN(4) == 0 {
			b = append(b, zeroBlock[:]...)
			continue
		}
		for range block / 16 {
			b = fmt.Appendf(b, "%08x", r.IntN(1<<14))
			b = append(b, 0, 0x7f, byte(r.IntN(256)), byte(r.IntN(256)), 0xc0, 0, 0, 0)
		}
	}
	return b[:n]
}

// BenchmarkSend brings 128 MiB from one directory in memory to another, over mutual TLS on
// loopback, by so many streams.
func BenchmarkSend(b *testing.B) {
	const size = 128 << 20
	for name, data := range map[string][]byte{"noise": random(size), "heap": heap(size), "zeros": make([]byte, size)} {
		for _, streams := range []int{1, 2, 4} {
			b.Run(fmt.Sprintf("%s/streams=%d", name, streams), func(b *testing.B) {
				x := newTarget(b)
				x.Store.Dir = inMemory(b)
				dir := inMemory(b)
				if err := os.WriteFile(dir+"/pages-1.img", data, 0o600); err != nil {
					b.Fatal(err)
				}
				s := x.sender(b, "a")
				s.Streams = streams
				b.SetBytes(size)
				for b.Loop() {
					if _, err := s.Send(b.Context(), testMove, dir); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					if err := x.Store.Discard(b.Context(), testMove); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			})
		}
	}
}

// BenchmarkSendKnown brings 128 MiB all of which went ahead.
func BenchmarkSendKnown(b *testing.B) {
	const size = 128 << 20
	data := random(size)
	x := newTarget(b)
	x.Store.Dir = inMemory(b)
	dir := inMemory(b)
	if err := os.WriteFile(dir+"/pages-1.img", data, 0o600); err != nil {
		b.Fatal(err)
	}
	s := x.sender(b, "a")
	b.SetBytes(size)
	for b.Loop() {
		b.StopTimer()
		a, err := s.Ahead(b.Context(), testMove, size)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := a.Add(data); err != nil {
			b.Fatal(err)
		}
		if err := a.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := s.Send(b.Context(), testMove, dir); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := x.Store.Discard(b.Context(), testMove); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkSendSlowly brings 64 MiB over a link of 1 Gbit/s.
func BenchmarkSendSlowly(b *testing.B) {
	const size = 64 << 20
	for name, data := range map[string][]byte{"noise": random(size), "heap": heap(size)} {
		b.Run(name, func(b *testing.B) {
			x := newTarget(b)
			x.Store.Dir = inMemory(b)
			dir := inMemory(b)
			if err := os.WriteFile(dir+"/pages-1.img", data, 0o600); err != nil {
				b.Fatal(err)
			}
			k := newLink(b, x.address, -1, 125e6)
			s := x.sender(b, "a")
			s.Address = func(string) (string, error) { return k.Addr().String(), nil }
			b.SetBytes(size)
			for b.Loop() {
				if _, err := s.Send(b.Context(), testMove, dir); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := x.Store.Discard(b.Context(), testMove); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// inMemory is a directory on a tmpfs, if the machine has one at the usual place.
func inMemory(b *testing.B) string {
	dir, err := os.MkdirTemp("/dev/shm", "transfer")
	if err != nil {
		return b.TempDir()
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
