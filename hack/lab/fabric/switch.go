package fabric

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Cut as a delay means that nothing passes between two ports.
const Cut time.Duration = -1

// Port is one TAP device on the switch. Names are unique on one switch. The file stays the
// caller's to close; while the switch runs it holds the device too, until Run returns or
// Attach replaces the port.
type Port struct {
	Name string
	File *os.File
}

// Stats counts what went over one direction of one pair since New.
type Stats struct {
	From, To string
	// Frames and Bytes were delivered.
	Frames, Bytes uint64
	// Full, Cut, Lost and Refused were dropped: queue full, link cut, by SetLoss, receiver down.
	Full, Cut, Lost, Refused uint64
}

// Switch is a learning Ethernet switch with a delay for every pair of ports. All methods
// may be called at any time, also while it runs.
type Switch struct {
	mu      sync.Mutex
	ports   []Port    // only ever grows; a port keeps its index
	links   [][]*link // [from][to], nil on the diagonal
	version uint64    // changes with ports
	wakeFD  int       // eventfd of the running loop, or -1
}

// New gives a switch with the given ports, all links without delay. It does nothing until
// Run is called.
func New(ports []Port) *Switch {
	s := &Switch{wakeFD: -1}
	for _, p := range ports {
		s.attach(p)
	}
	return s
}

// Attach adds a port, or gives the port of that name another device (a node that came
// back): its delays stay as they are.
func (s *Switch) Attach(p Port) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attach(p)
	return s.wake()
}

func (s *Switch) attach(p Port) {
	s.version++
	if i := s.index(p.Name); i >= 0 {
		s.ports[i] = p
		return
	}
	s.ports = append(s.ports, p)
	n := len(s.ports)
	for i := range s.links {
		s.links[i] = append(s.links[i], new(link))
	}
	row := make([]*link, n)
	for i := range n - 1 {
		row[i] = new(link)
	}
	s.links = append(s.links, row)
}

func (s *Switch) index(name string) int {
	return slices.IndexFunc(s.ports, func(p Port) bool { return p.Name == name })
}

// SetDelay sets how long a frame takes from a to b and from b to a: a round trip takes
// twice that. Cut (or any negative delay) drops everything between the two, also what is
// on its way; zero delivers at once.
func (s *Switch) SetDelay(a, b string, oneWay time.Duration) error {
	if oneWay < 0 {
		oneWay = Cut
	}
	err := s.both(a, b, func(l *link) { l.delay.Store(int64(oneWay)) })
	if err != nil {
		return fmt.Errorf("set delay between %q and %q: %w", a, b, err)
	}
	return nil
}

// SetLoss sets how likely a frame between a and b, both ways, is lost: 0 none, 1 all.
func (s *Switch) SetLoss(a, b string, rate float64) error {
	if !(rate >= 0 && rate <= 1) { // NaN too
		return fmt.Errorf("set loss between %q and %q to %g: want 0 to 1", a, b, rate)
	}
	err := s.both(a, b, func(l *link) { l.loss.Store(math.Float64bits(rate)) })
	if err != nil {
		return fmt.Errorf("set loss between %q and %q: %w", a, b, err)
	}
	return nil
}

// both calls f for the two directions of a pair.
func (s *Switch) both(a, b string, f func(*link)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, j := s.index(a), s.index(b)
	switch {
	case i < 0:
		return fmt.Errorf("no port %q", a)
	case j < 0:
		return fmt.Errorf("no port %q", b)
	case i == j:
		return errors.New("a port has no link to itself")
	}
	f(s.links[i][j])
	f(s.links[j][i])
	return nil
}

// Delays gives the one-way delay of every pair, the names of a pair in ascending order.
func (s *Switch) Delays() map[[2]string]time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	delays := make(map[[2]string]time.Duration)
	for i, a := range s.ports {
		for j, b := range s.ports {
			if a.Name < b.Name {
				delays[[2]string{a.Name, b.Name}] = time.Duration(s.links[i][j].delay.Load())
			}
		}
	}
	return delays
}

// Stats gives the counters of every link, ordered by the names of the ports.
func (s *Switch) Stats() []Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Stats
	for i, from := range s.ports {
		for j, to := range s.ports {
			if i == j {
				continue
			}
			l := s.links[i][j]
			all = append(all, Stats{From: from.Name, To: to.Name,
				Frames: l.frames.Load(), Bytes: l.bytes.Load(),
				Full: l.full.Load(), Cut: l.cut.Load(), Lost: l.lost.Load(), Refused: l.refused.Load()})
		}
	}
	slices.SortFunc(all, func(a, b Stats) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	return all
}

// wake makes a waiting loop look again. Called with mu held.
func (s *Switch) wake() error {
	if s.wakeFD < 0 {
		return nil
	}
	one := [8]byte{1}
	_, err := unix.Write(s.wakeFD, one[:])
	if err != nil && !errors.Is(err, unix.EAGAIN) { // EAGAIN: woken already
		return fmt.Errorf("wake the switch: %w", err)
	}
	return nil
}
