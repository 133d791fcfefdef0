// Package conversation tells what the TCP connections of a machine carry, by the pairs of
// addresses that they are between, and the round trips that the kernel measures on them
// anyway: smoothed (RFC 6298) and least (of the last minutes, tcp_min_rtt_wlen). It sees
// the connections of all network namespaces, also those that were open before.
//
// Nothing of it runs per packet. It attaches to the BTF tracepoint inet_sock_set_state, or
// else by sock_ops to a cgroup v2 directory, and reads the counters of open connections by
// way of their socket storage. That needs Linux 5.12 or newer with BTF, CAP_BPF, CAP_PERFMON
// and CAP_NET_ADMIN. A connection from its first change of state to its last costs 6.4 µs, both
// ends together, and a reading 0.4 µs for each open one that has carried something, 0.1 µs for
// each that has not (BenchmarkConnection, BenchmarkRead).
//
// Known limits. A connection that stays within one host, by the loopback device or an
// address of its own, is not told of. Of the connections that were open before, those are
// found that are a file of a process in the reader's PID namespace or below: not what waits
// to be accepted, nor the kernel's own and MPTCP's. What an end has sent is counted when it
// is acknowledged, and headers are never counted. Between two readings 16,384 pairs are told
// apart, and of one local address a quarter of that: what ends beyond is counted as lost, what
// goes on is told of at a reading that finds room.
package conversation

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/drover-project/drover/bpf/iterator"
)

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -Wall -Werror -mcpu=v3" -target bpfel conversation conversation.bpf.c

// Source tells what the kernel programs are attached to.
type Source string

const (
	// Tracepoint sees every connection.
	Tracepoint Source = "tracepoint"
	// SockOps sees connections made after it was attached, by processes of its cgroup.
	SockOps Source = "sock_ops"
)

// Pair is the addresses of one end, which is on this machine, and of the other one, which
// may be: then there are two Pairs. Neither is an IPv4 address mapped into IPv6.
type Pair struct{ Local, Remote netip.Addr }

// Traffic is what the connections of a Pair have carried since the reading before.
type Traffic struct {
	// Sent and Received are bytes of payload; sent counts once it is acknowledged.
	Sent, Received uint64
	// Connections is how many have received a segment.
	Connections uint64
	// SmoothedRTT is the mean of their smoothed round trips, weighted with the segments that
	// each has received; MinRTT is the least of their least ones. Both are 0 where no
	// connection with a measured round trip has received a segment.
	SmoothedRTT, MinRTT time.Duration
	// Segments is the sum of the weights.
	Segments uint64
}

// Reading is what a Meter knows at one moment.
type Reading struct {
	// Pairs is what has carried something since the reading before.
	Pairs map[Pair]Traffic
	// Lost is how many connections the kernel's tables, or an address' part of them, had no room
	// for since the programs were attached; greater than 0 means figures are too low.
	Lost uint64
}

// Meter holds the attached programs and their maps. It may be used by one goroutine at a time.
type Meter struct {
	source     Source
	refused    error // why source is not Tracepoint
	collection *ebpf.Collection
	links      []io.Closer
	report     *link.Iter
	part       int // how many pairs one local address may be in
	period     uint32
	before     map[conversationPair]conversationTraffic // of the reading before
}

// parts: one local address may be in one of so many parts of all pairs.
const parts = 4

// Attach loads the programs into the kernel and attaches them: to the tracepoint, or, where
// that cannot be, to the cgroup v2 directory. The caller closes the Meter.
func Attach(cgroup string) (*Meter, error) {
	m, refused := attach(Tracepoint, cgroup, nil)
	if refused == nil {
		return m, nil
	}
	m, err := attach(SockOps, cgroup, nil)
	if err != nil {
		return nil, errors.Join(refused, err)
	}
	m.refused = refused
	return m, nil
}

// attach attaches by one source; adapt may change the spec.
func attach(source Source, cgroup string, adapt func(*ebpf.CollectionSpec)) (_ *Meter, err error) {
	spec, err := loadConversation()
	if err != nil {
		return nil, fmt.Errorf("read the conversation programs: %w", err)
	}
	unused := []string{"sock_ops"}
	if source == SockOps {
		// How those end that are open already, it would not see.
		unused = []string{"inet_sock_set_state", "find"}
	}
	for _, name := range unused {
		delete(spec.Programs, name)
	}
	if adapt != nil {
		adapt(spec)
	}
	pairs := spec.Maps["pairs"].MaxEntries
	spec.Maps["locals"].MaxEntries = pairs
	if err := spec.Variables["part"].Set(pairs / parts); err != nil {
		return nil, fmt.Errorf("bound the pairs of one address: %w", err)
	}
	m := &Meter{source: source, part: int(pairs / parts), period: 1, before: map[conversationPair]conversationTraffic{}}
	if m.collection, err = ebpf.NewCollection(spec); err != nil {
		return nil, fmt.Errorf("load the conversation programs (Linux 5.12 with BTF, CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are needed): %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if m.report, err = m.iterate("report", m.collection.Maps["connections"]); err != nil {
		return nil, err
	}
	if source == SockOps {
		return m, m.attachTo(cgroup)
	}
	l, err := link.AttachTracing(link.TracingOptions{Program: m.collection.Programs["inet_sock_set_state"]})
	if err != nil {
		return nil, fmt.Errorf("attach to the tracepoint inet_sock_set_state: %w", err)
	}
	m.links = append(m.links, l)
	find, err := m.iterate("find", nil)
	if err != nil {
		return nil, err
	}
	if err := iterator.Run(find); err != nil {
		return nil, fmt.Errorf("find the open connections: %w", err)
	}
	return m, nil
}

func (m *Meter) attachTo(cgroup string) error {
	l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: ebpf.AttachCGroupSockOps, Program: m.collection.Programs["sock_ops"]})
	if err != nil {
		return fmt.Errorf("attach sock_ops to the cgroup v2 directory %q: %w", cgroup, err)
	}
	m.links = append(m.links, l)
	return nil
}

func (m *Meter) iterate(program string, over *ebpf.Map) (*link.Iter, error) {
	i, err := link.AttachIter(link.IterOptions{Program: m.collection.Programs[program], Map: over})
	if err != nil {
		return nil, fmt.Errorf("attach the iterator %s: %w", program, err)
	}
	m.links = append(m.links, i)
	return i, nil
}

// Source tells what the programs are attached to, and why it is not the tracepoint.
func (m *Meter) Source() (Source, error) { return m.source, m.refused }

// Read reads everything anew.
func (m *Meter) Read() (Reading, error) {
	if err := iterator.Run(m.report); err != nil {
		return Reading{}, fmt.Errorf("read the counters of open connections: %w", err)
	}
	now, err := m.readPairs()
	if err != nil {
		return Reading{}, err
	}
	lost, err := m.lost()
	if err != nil {
		return Reading{}, err
	}
	r := Reading{Pairs: carried(now, m.before, m.period), Lost: lost}
	if err := m.makeRoom(now); err != nil {
		return Reading{}, err
	}
	m.before = now
	m.period = max(1, m.period+1)
	if err := m.collection.Variables["period"].Set(m.period); err != nil {
		return Reading{}, fmt.Errorf("begin the next period of conversations: %w", err)
	}
	return r, nil
}

// readPairs gives what each pair has come to.
func (m *Meter) readPairs() (map[conversationPair]conversationTraffic, error) {
	const many = 1024
	keys, values := make([]conversationPair, many), make([]conversationTraffic, many)
	pairs := make(map[conversationPair]conversationTraffic)
	for cursor := new(ebpf.MapBatchCursor); ; {
		n, err := m.collection.Maps["pairs"].BatchLookup(cursor, keys, values, nil)
		for i, p := range keys[:n] {
			pairs[p] = values[i]
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return pairs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read who talks to whom, %d pairs or more: %w", len(pairs), err)
		}
	}
}

// makeRoom drops the pairs that did not grow since the reading before, once half of the
// table is in use, or of the part of their local address. One that comes again begins anew.
func (m *Meter) makeRoom(now map[conversationPair]conversationTraffic) error {
	table := m.collection.Maps["pairs"]
	crowded := len(now) >= int(table.MaxEntries())/2
	have := map[[4]uint32]int{}
	for p := range now {
		have[p.Local]++
	}
	left := map[[4]uint32]int{} // of the addresses of which some were dropped
	for p, t := range now {
		if t != m.before[p] || !crowded && have[p.Local] < m.part/2 {
			continue
		}
		if err := table.Delete(p); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget that %v: %w", p.pair(), err)
		}
		delete(now, p)
		if _, some := left[p.Local]; !some {
			left[p.Local] = have[p.Local]
		}
		left[p.Local]--
	}
	for local, n := range left {
		if err := m.count(local, n); err != nil {
			return fmt.Errorf("count the pairs of %v: %w", address(local), err)
		}
	}
	return nil
}

// count says how many pairs a local address is in.
func (m *Meter) count(local [4]uint32, pairs int) error {
	if pairs > 0 {
		return m.collection.Maps["locals"].Put(local, uint32(pairs))
	}
	err := m.collection.Maps["locals"].Delete(local)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// lost counts the connections that found no room.
func (m *Meter) lost() (sum uint64, err error) {
	var perCPU []uint64
	if err := m.collection.Maps["lost"].Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read the count of lost connections: %w", err)
	}
	for _, n := range perCPU {
		sum += n
	}
	return sum, nil
}

// Close detaches the programs and frees the maps.
func (m *Meter) Close() error {
	errs := make([]error, 0, len(m.links))
	for _, l := range m.links {
		errs = append(errs, l.Close())
	}
	m.collection.Close()
	return errors.Join(errs...)
}
