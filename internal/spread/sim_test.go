package spread

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// overhead is what memberlist (kind 1, checksum 5, encryption 29), UDP and IP add to a packet.
const overhead = 35 + 28

// simulation runs many members over a network that delays, reorders, loses and repeats, in
// virtual time.
type simulation struct {
	rng       *rand.Rand
	now       time.Time
	events    []event // a heap
	order     uint64
	nodes     []*simNode
	at        map[Peer]*simNode
	loss      float64
	twice     float64
	cut       func(from, to *simNode) bool
	delivered func(n *simNode, origin int, version uint64)
	sent      func(Packet)
}

type event struct {
	at    time.Duration // since the start
	order uint64
	to    *simNode
	b     []byte // nil: a tick
	do    func()
}

// simNode is a member whose Records are a version for each origin. The size of a record
// follows the origin, so that all of one have the same.
type simNode struct {
	*Spread
	sim      *simulation
	id       int
	versions []uint64
	hole     bool // takes nothing and passes nothing on
	dead     bool
	bytes    int64 // sent
	packets  int64
	payloads int64 // records received
}

var simStart = time.Unix(1e9, 0)

func newSimulation(seed uint64, n int, loss float64) *simulation {
	m := &simulation{rng: rand.New(rand.NewPCG(seed, 0)), now: simStart, at: map[Peer]*simNode{}, loss: loss, twice: 0.01}
	for range n {
		m.add()
	}
	// They have been together for long.
	members := ring{}
	for p := range m.at {
		members = append(members, p)
	}
	slices.Sort(members)
	for _, node := range m.nodes {
		node.ring = slices.Clone(members)
		node.repair.newcomer = false
	}
	return m
}

func simPeer(id int) Peer { return PeerOf(fmt.Sprint("node-", id)) }

func (m *simulation) add() *simNode {
	n := &simNode{sim: m, id: len(m.nodes)}
	n.Spread = New(simPeer(n.id), n, rand.New(rand.NewPCG(uint64(n.id), m.rng.Uint64())))
	n.Spread.repair.next = m.now.Add(time.Duration(m.rng.Int64N(int64(compareMost))))
	m.nodes = append(m.nodes, n)
	m.at[n.self] = n
	m.push(event{at: m.now.Sub(simStart) + time.Duration(m.rng.Int64N(int64(tick))), to: n})
	return n
}

const tick = 50 * time.Millisecond

const simHeader = 12 // origin 4 | version 8

func simRecord(origin int, version uint64, size int) []byte {
	b := make([]byte, size)
	binary.BigEndian.PutUint32(b, uint32(origin))
	binary.BigEndian.PutUint64(b[4:], version)
	return b
}

func simSlot(origin int) Slot { return Slot(uint64(origin)*0x9e3779b97f4a7c15 + 1) }

func (n *simNode) version(origin int) uint64 {
	if origin >= len(n.versions) {
		return 0
	}
	return n.versions[origin]
}

func (n *simNode) set(origin int, version uint64) {
	for origin >= len(n.versions) {
		n.versions = append(n.versions, make([]uint64, 1+origin-len(n.versions))...)
	}
	n.versions[origin] = version
}

func (n *simNode) Take(raw []byte) (Slot, uint64, Verdict) {
	n.payloads++
	if len(raw) < simHeader || n.hole {
		return 0, 0, Refused
	}
	origin, version := int(binary.BigEndian.Uint32(raw)), binary.BigEndian.Uint64(raw[4:])
	switch have := n.version(origin); {
	case version < have:
		return simSlot(origin), version, Stale
	case version == have:
		return simSlot(origin), version, Known
	}
	n.set(origin, version)
	if n.sim.delivered != nil {
		n.sim.delivered(n, origin, version)
	}
	return simSlot(origin), version, Fresh
}

// Get finds the origin by the inverse of simSlot's factor.
func (n *simNode) Get(at Slot) []byte {
	origin := int(uint64(at-1) * inverse(0x9e3779b97f4a7c15))
	if v := n.version(origin); v != 0 {
		return simRecord(origin, v, 90)
	}
	return nil
}

func inverse(x uint64) uint64 {
	y := x
	for range 6 {
		y *= 2 - x*y
	}
	return y
}

func (n *simNode) say(version uint64, twice bool) {
	n.set(n.id, version)
	n.sim.send(n, n.Say(n.sim.now, simSlot(n.id), version, simRecord(n.id, version, 90), twice))
}

func (m *simulation) send(from *simNode, packets []Packet) {
	for _, p := range packets {
		from.bytes += int64(len(p.Bytes) + overhead)
		from.packets++
		if m.sent != nil {
			m.sent(p)
		}
		to := m.at[p.To]
		if to == nil || to.dead || m.cut != nil && m.cut(from, to) {
			continue
		}
		if !p.Stream && len(p.Bytes) > maxPacket {
			panic(fmt.Sprintf("packet of %d bytes", len(p.Bytes)))
		}
		for copies := 1; copies > 0; copies-- {
			if !p.Stream && m.rng.Float64() < m.loss {
				continue
			}
			if m.rng.Float64() < m.twice {
				copies++
			}
			delay := 200*time.Microsecond + time.Duration(m.rng.Int64N(int64(4800*time.Microsecond)))
			m.push(event{at: m.now.Sub(simStart) + delay, to: to, b: p.Bytes})
		}
	}
}

func (m *simulation) later(after time.Duration, do func()) {
	m.push(event{at: m.now.Sub(simStart) + after, do: do})
}

func (m *simulation) push(e event) {
	m.order++
	e.order = m.order
	m.events = append(m.events, e)
	for i := len(m.events) - 1; i > 0 && m.events[i].before(m.events[(i-1)/2]); i = (i - 1) / 2 {
		m.events[i], m.events[(i-1)/2] = m.events[(i-1)/2], m.events[i]
	}
}

func (e event) before(o event) bool { return e.at < o.at || e.at == o.at && e.order < o.order }

func (m *simulation) pop() event {
	top := m.events[0]
	last := len(m.events) - 1
	m.events[0] = m.events[last]
	m.events[last] = event{}
	m.events = m.events[:last]
	for i := 0; ; {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < last; c++ {
			if m.events[c].before(m.events[least]) {
				least = c
			}
		}
		if least == i {
			return top
		}
		m.events[i], m.events[least] = m.events[least], m.events[i]
		i = least
	}
}

// run lets time pass.
func (m *simulation) run(d time.Duration) {
	end := m.now.Add(d).Sub(simStart)
	for len(m.events) > 0 && m.events[0].at <= end {
		e := m.pop()
		m.now = simStart.Add(e.at)
		switch {
		case e.do != nil:
			e.do()
		case e.to.dead:
		case e.b == nil:
			m.send(e.to, e.to.Tick(m.now))
			m.push(event{at: e.at + tick, to: e.to})
		default:
			m.send(e.to, e.to.Receive(m.now, e.b))
		}
	}
	m.now = simStart.Add(end)
}

// spreadOf follows how long each new version takes to reach the members.
type spreadOf struct {
	sim     *simulation
	sayers  int
	said    map[[2]uint64]time.Time // by origin and version
	reached map[[2]uint64]int
	delays  []time.Duration // of each new version at each member
	to99    []time.Duration
	to100   []time.Duration
}

func follow(m *simulation) *spreadOf {
	f := &spreadOf{sim: m, sayers: len(m.nodes), said: map[[2]uint64]time.Time{}, reached: map[[2]uint64]int{}}
	m.delivered = func(n *simNode, origin int, version uint64) {
		k := [2]uint64{uint64(origin), version}
		at, ok := f.said[k]
		if !ok {
			return
		}
		after := m.now.Sub(at)
		f.delays = append(f.delays, after)
		f.reached[k]++
		others := len(m.nodes) - 1
		if f.reached[k] == (others*99+99)/100 {
			f.to99 = append(f.to99, after)
		}
		if f.reached[k] == others {
			f.to100 = append(f.to100, after)
		}
	}
	return f
}

func (f *spreadOf) say(n *simNode, twice bool) {
	version := uint64(f.sim.now.UnixNano())
	f.said[[2]uint64{uint64(n.id), version}] = f.sim.now
	n.say(version, twice)
}

// forget begins anew.
func (f *spreadOf) forget() {
	f.delays, f.to99, f.to100 = nil, nil, nil
	clear(f.said)
	clear(f.reached)
}

// load has every node say something new at a random moment of each period.
func (f *spreadOf) load(periods int, period time.Duration) {
	m := f.sim
	type turn struct {
		at time.Time
		n  *simNode
	}
	for range periods {
		begin := m.now
		var turns []turn
		for _, n := range m.nodes[:f.sayers] {
			turns = append(turns, turn{begin.Add(time.Duration(m.rng.Int64N(int64(period)))), n})
		}
		slices.SortFunc(turns, func(a, b turn) int { return a.at.Compare(b.at) })
		for _, t := range turns {
			m.run(t.at.Sub(m.now))
			if t.n.dead {
				continue
			}
			f.say(t.n, false)
		}
		m.run(begin.Add(period).Sub(m.now))
	}
}

func quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return -1
	}
	slices.Sort(ds)
	return ds[min(len(ds)-1, int(q*float64(len(ds))))].Round(time.Millisecond)
}

// traffic is bytes sent a second since the counters were reset: the mean and the most.
func (m *simulation) traffic(d time.Duration) (mean, most float64) {
	for _, n := range m.nodes {
		b := float64(n.bytes) / d.Seconds()
		mean += b / float64(len(m.nodes))
		most = max(most, b)
	}
	return mean, most
}

func (m *simulation) reset() {
	for _, n := range m.nodes {
		n.bytes, n.packets, n.payloads = 0, 0, 0
	}
}

func (m *simulation) counts() (sum Counts) {
	for _, n := range m.nodes {
		c := n.Counts()
		sum.Malformed += c.Malformed
		sum.Absurd += c.Absurd
		sum.Repeated += c.Repeated
		sum.Resent += c.Resent
		sum.Dropped += c.Dropped
		sum.Bypassed += c.Bypassed
		sum.Repaired += c.Repaired
		sum.Strangers += c.Strangers
		sum.Limited += c.Limited
	}
	return sum
}
