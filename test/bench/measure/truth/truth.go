// Package truth tells when the packets of a few probers passed the drivers of their network
// devices, by tracepoints of the kernel that none of the probers uses. What a packet spent
// between the two drivers is the network's share of its round trip; all else is the prober's.
//
// Both ends must be namespaces of one machine, so that there is one clock.
package truth

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
)

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -Wall -Werror" -target bpfel truth truth.bpf.c

// Prober is who sent a packet, told by its port.
type Prober uint32

// The probers. Datagrams of UDP have the layout of Drover's.
const (
	Drover Prober = iota
	UDP
	HTTP
)

// Ports of the probers that are compared with ours.
const (
	UDPPort  = 18098
	HTTPPort = 18099
)

// Point is where a packet was seen.
type Point uint32

// The points, in the order of a round trip.
const (
	RequestLeaves Point = iota
	RequestComes
	AnswerLeaves
	AnswerComes
	Points
)

// Event is one packet at one point. ID is a datagram's nonce; a segment's is 0.
type Event struct {
	ID     uint64
	At     time.Duration // of CLOCK_MONOTONIC
	Prober Prober
	Point  Point
}

// Witness is the programs.
type Witness struct {
	objects truthObjects
	links   []link.Link
	ring    *ringbuf.Reader
}

// Open begins to watch all devices of the machine.
func Open() (*Witness, error) {
	_ = rlimit.RemoveMemlock()
	w := &Witness{}
	if err := loadTruthObjects(&w.objects, nil); err != nil {
		return nil, fmt.Errorf("load the truth's programs: %w", err)
	}
	var err error
	if w.ring, err = ringbuf.NewReader(w.objects.Events); err != nil {
		return nil, errors.Join(err, w.objects.Close())
	}
	for _, p := range []link.TracingOptions{{Program: w.objects.Leaves}, {Program: w.objects.Comes}} {
		l, err := link.AttachTracing(p)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach the truth's programs: %w", err), w.Close())
		}
		w.links = append(w.links, l)
	}
	return w, nil
}

// Close ends watching; Read returns os.ErrClosed.
func (w *Witness) Close() error {
	errs := []error{w.ring.Close()}
	for _, l := range w.links {
		errs = append(errs, l.Close())
	}
	return errors.Join(append(errs, w.objects.Close())...)
}

// Read gives the next event; when there is no more at the deadline, os.ErrDeadlineExceeded.
// Nothing wakes it before the deadline.
func (w *Witness) Read(deadline time.Time) (Event, error) {
	w.ring.SetDeadline(deadline)
	r, err := w.ring.Read()
	if err != nil {
		return Event{}, err
	}
	b := r.RawSample
	if len(b) < 24 {
		return Event{}, fmt.Errorf("event of %d bytes, want 24", len(b))
	}
	return Event{
		ID:     binary.NativeEndian.Uint64(b),
		At:     time.Duration(binary.NativeEndian.Uint64(b[8:])),
		Prober: Prober(binary.NativeEndian.Uint32(b[16:])),
		Point:  Point(binary.NativeEndian.Uint32(b[20:])),
	}, nil
}

// Lost is how many events found no room.
func (w *Witness) Lost() (uint64, error) {
	var perCPU []uint64
	if err := w.objects.Lost.Lookup(uint32(0), &perCPU); err != nil {
		return 0, err
	}
	n := uint64(0)
	for _, c := range perCPU {
		n += c
	}
	return n, nil
}
