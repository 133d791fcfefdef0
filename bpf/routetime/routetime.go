// Package routetime measures the round trip to other nodes from kernel to kernel, with UDP
// probes that eBPF programs stamp, turn round and take in at a network device.
//
// User space announces a nonce (Meter.Expect) and sends a Packet with it by a Sender, from one of
// the Paths ports that begin with Port, to the peer's Port; the programs do the rest and give a
// Sample. The answer goes back to the port that the probe came from. What answers and takes in
// answers is attached to Ethernet devices, by tcx, or by clsact on kernels before 6.6. The programs
// need Linux 5.14 with BTF, CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN. Packets that come in and are no
// probes cost a comparison of their length; those that leave cost nothing.
//
// A sample begins where the stack hands the probe to the device, before its queue, and ends at
// the device's ingress hook, before any firewall.
package routetime

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/drover-project/drover/bpf/pin"
)

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -Wall -Werror" -target bpfel routetime routetime.bpf.c

// Port is the UDP port that probes go to. Probes come from it and the Paths-1 ports after it,
// so that routers that choose between equal routes by a hash of the ports (ECMP) send them
// by several. Both are compiled into the programs.
const (
	Port  = 7948
	Paths = 8
)

// Sample is one measured round trip.
type Sample struct {
	Peer  netip.Addr
	Nonce uint64
	RTT   time.Duration
	// Answered tells who turned the probe round: AnsweredByKernel or AnsweredByUser.
	Answered Kind
}

// Stats counts what the programs did since they were loaded.
type Stats struct {
	// Stamped probes left, Answered were turned round here by tc and AnsweredXDP by XDP,
	// Measured came back.
	Stamped, Answered, AnsweredXDP, Measured uint64
	// Stranger counts probes that were dropped as their sender is no member.
	Stranger uint64
	// Unknown and WrongPeer count answers that were dropped: their nonce was not asked for
	// or was answered before, or they came from another address than was asked.
	Unknown, WrongPeer uint64
	// Unstamped answers were left to user space, as the probe was sent by no Sender.
	Unstamped uint64
	// RingFull counts samples that were lost because nobody read them.
	RingFull uint64
}

// Meter is the programs in the kernel and what they are attached to. Its methods may be
// called from several goroutines.
type Meter struct {
	objects routetimeObjects
	ring    *ringbuf.Reader
	leaves  link.Link // not pinned: without this process nothing is sent
	pins    *pin.Set
	swept   bool // filters that an earlier Meter left are gone

	mu         sync.RWMutex // held for reading while a map is in use, so that Close waits
	closed     bool
	members    map[netip.Addr]routetimeMember
	attached   map[int]attachment // by index of the device
	reflecting map[int]attachment
}

// Open loads the programs into the kernel and attaches them to nothing yet. The error tells
// what the kernel or the missing capability refused.
func Open() (*Meter, error) { return OpenPinned("") }

// OpenPinned is Open with a directory in a BPF file system. What is attached stays when the
// Meter is closed, whoever was a member is answered meanwhile, and the next Meter goes on with
// it: see package pin. An empty directory pins nothing.
func OpenPinned(pins string) (*Meter, error) {
	// Only kernels before 5.11 count maps against this limit; where it matters, loading fails.
	_ = rlimit.RemoveMemlock()
	m := &Meter{members: make(map[netip.Addr]routetimeMember), attached: make(map[int]attachment), reflecting: make(map[int]attachment)}
	spec, err := loadRoutetime()
	if err != nil {
		return nil, fmt.Errorf("read the route time programs: %w", err)
	}
	if pins != "" {
		if m.pins, err = pin.Open(pins, spec, fmt.Sprintf("%x", sha256.Sum256(_RoutetimeBytes))); err != nil {
			return nil, fmt.Errorf("pin the route time programs: %w", err)
		}
	}
	if err := spec.LoadAndAssign(&m.objects, m.pins.Options()); err != nil {
		return nil, fmt.Errorf("load route time programs (this takes CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN): %w", err)
	}
	if m.leaves, err = link.AttachTracing(link.TracingOptions{Program: m.objects.RoutetimeLeaves}); err != nil {
		return nil, errors.Join(fmt.Errorf("attach to where the kernel tells of stamps: %w", err), m.objects.Close())
	}
	err = errors.Join(m.pins.Replace(), m.takeOver())
	if err == nil {
		m.ring, err = ringbuf.NewReader(m.objects.Samples)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin to read route times: %w", err), m.leaves.Close(), m.objects.Close())
	}
	return m, nil
}

// takeOver learns who was a member, and forgets the probes that nobody waits for any more.
func (m *Meter) takeOver() error {
	var key routetimeAddress
	var what routetimeMember
	members := m.objects.Members.Iterate()
	for members.Next(&key, &what) {
		m.members[fromWords(key)] = what
	}
	var nonce uint64
	var expected routetimeExpected
	var stale []uint64
	outstanding := m.objects.Outstanding.Iterate()
	for outstanding.Next(&nonce, &expected) {
		stale = append(stale, nonce)
	}
	errs := []error{members.Err(), outstanding.Err()}
	for _, nonce := range stale {
		if err := m.objects.Outstanding.Delete(nonce); !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Close detaches and unloads everything that is not pinned; a waiting Read returns
// os.ErrClosed, and so do all methods from then on. With clsact it wants the network
// namespace of the devices.
func (m *Meter) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	errs := []error{m.ring.Close(), m.leaves.Close()}
	for _, attached := range []map[int]attachment{m.reflecting, m.attached} {
		for _, a := range attached {
			if m.pins != nil {
				errs = append(errs, a.leave())
			} else {
				errs = append(errs, a.Close())
			}
		}
	}
	return errors.Join(append(errs, m.objects.Close())...)
}

// SetMembers says which addresses are this node's own (probes to them are turned round) and
// which are peers' (only their probes are).
func (m *Meter) SetMembers(self, peers []netip.Addr) error {
	want := make(map[netip.Addr]routetimeMember, len(self)+len(peers))
	for _, a := range peers {
		want[a.Unmap()] = routetimeMemberMEMBER_PEER
	}
	for _, a := range self {
		want[a.Unmap()] = routetimeMemberMEMBER_SELF
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return os.ErrClosed
	}
	for a := range m.members {
		if _, stays := want[a]; stays {
			continue
		}
		if err := m.objects.Members.Delete(a.As16()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove member %s: %w", a, err)
		}
		delete(m.members, a)
	}
	for a, what := range want {
		if m.members[a] == what {
			continue
		}
		if err := m.objects.Members.Put(a.As16(), what); err != nil {
			return fmt.Errorf("add member %s: %w", a, err)
		}
		m.members[a] = what
	}
	return nil
}

// Expect announces a probe with the nonce to peer; call it before the probe is sent. The
// announcement stays until the answer has come or Forget is called.
func (m *Meter) Expect(nonce uint64, peer netip.Addr) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return os.ErrClosed
	}
	var e routetimeExpected
	e.Peer = toWords(peer)
	if err := m.objects.Outstanding.Update(nonce, &e, ebpf.UpdateNoExist); err != nil {
		return fmt.Errorf("announce a probe to %s: %w", peer, err)
	}
	return nil
}

// Forget takes an announcement back; one that is gone already is no error.
func (m *Meter) Forget(nonce uint64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return os.ErrClosed
	}
	err := m.objects.Outstanding.Delete(nonce)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget a probe: %w", err)
	}
	return nil
}

// Read waits for the next sample. After Close it returns os.ErrClosed.
func (m *Meter) Read() (Sample, error) {
	record, err := m.record()
	if err != nil {
		return Sample{}, err
	}
	return decodeSample(record)
}

func (m *Meter) record() ([]byte, error) {
	record, err := m.ring.Read()
	if err != nil {
		return nil, fmt.Errorf("read route time samples: %w", err)
	}
	return record.RawSample, nil
}

// Samples gives the samples that are there, without waiting, and of each record that cannot be
// one (bad) why. No Read may be waiting meanwhile.
func (m *Meter) Samples() (samples []Sample, bad []error, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return nil, nil, os.ErrClosed
	}
	m.ring.SetDeadline(time.Unix(0, 0))
	defer m.ring.SetDeadline(time.Time{})
	// Not asked when there is nothing, which takes a system call.
	for m.ring.AvailableBytes() > 0 {
		record, err := m.record()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return samples, bad, err
		}
		s, err := decodeSample(record)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		samples = append(samples, s)
	}
	return samples, bad, nil
}

// Runtime tells how often the programs ran and how long that took, while the kernel keeps such
// statistics (ebpf.EnableStats); else nothing.
func (m *Meter) Runtime() (runs uint64, took time.Duration, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return 0, 0, os.ErrClosed
	}
	for _, p := range []*ebpf.Program{m.objects.RoutetimeIngress, m.objects.RoutetimeLeaves, m.objects.RoutetimeXdp} {
		s, err := p.Stats()
		if err != nil {
			return 0, 0, fmt.Errorf("read how long the route time programs ran: %w", err)
		}
		runs += s.RunCount
		took += s.Runtime
	}
	return runs, took, nil
}

// Stats reads the programs' counters.
func (m *Meter) Stats() (Stats, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return Stats{}, os.ErrClosed
	}
	var s Stats
	for counter, to := range map[routetimeCounter]*uint64{
		routetimeCounterSTAMPED:      &s.Stamped,
		routetimeCounterANSWERED:     &s.Answered,
		routetimeCounterANSWERED_XDP: &s.AnsweredXDP,
		routetimeCounterMEASURED:     &s.Measured,
		routetimeCounterSTRANGER:     &s.Stranger,
		routetimeCounterUNKNOWN:      &s.Unknown,
		routetimeCounterWRONG_PEER:   &s.WrongPeer,
		routetimeCounterUNSTAMPED:    &s.Unstamped,
		routetimeCounterRING_FULL:    &s.RingFull,
	} {
		var perCPU []uint64
		if err := m.objects.Counters.Lookup(counter, &perCPU); err != nil {
			return Stats{}, fmt.Errorf("read route time counter %d: %w", counter, err)
		}
		for _, n := range perCPU {
			*to += n
		}
	}
	return s, nil
}
