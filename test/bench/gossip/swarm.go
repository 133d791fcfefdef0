package gossip

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/drover-project/drover/internal/gossip"
	"github.com/drover-project/drover/internal/spread"
)

// A swarm is the model of clusters that are too large to run: the real internal/spread of every
// member and nothing else of it, over a network as that of the worlds. Records are numbers
// that nobody signs or verifies, and everybody knows who is a member. What the rest costs, which is
// memberlist's for the most part, is fitted to worlds: see predict.
type swarm struct {
	rng   *rand.Rand
	loss  float64
	size  payload
	nodes []*swarmNode
	at    map[spread.Peer]*swarmNode
	slots map[spread.Slot]int
	names []spread.Slot // by number: reports by their node's, then locations

	now     int64          // in units
	wheel   [][]swarmEvent // by unit, modulo its length
	follows map[int]*swarmFollowed
	spread  [3]spreadTimes
}

// spreadTimes are those of what was followed to its end, and how much was.
type spreadTimes struct {
	most, all []time.Duration
	begun     int
}

type swarmNode struct {
	*spread.Spread
	swarm          *swarm
	i              int
	versions       []uint32
	sent, received int
	changed        int64 // unit of a change that was not said yet; -1: none
	said           int64
	stagger        int64
}

type swarmEvent struct {
	to     *swarmNode
	packet []byte // nil: a tick
}

type swarmFollowed struct {
	version uint32
	since   int64
	told    int64
	held    int // by so many
	record  kind
	counts  bool
}

const (
	swarmUnit = 100 * time.Microsecond
	swarmTick = 50 * time.Millisecond
	// framing is what memberlist (a kind, a checksum, encryption), UDP and IP add.
	framing     = 35 + 28
	swarmRecord = 8 // number 4 | version 4
)

var swarmStart = time.Unix(1e9, 0)

func (s *swarm) clock() time.Time { return swarmStart.Add(time.Duration(s.now) * swarmUnit) }

func units(d time.Duration) int64 { return int64(d / swarmUnit) }

// newSwarm makes members that have been together for long.
func newSwarm(n int, seed uint64, loss float64, size payload) *swarm {
	s := &swarm{rng: rand.New(rand.NewPCG(seed, 5)), loss: loss, size: size, at: map[spread.Peer]*swarmNode{}, slots: map[spread.Slot]int{},
		wheel: make([][]swarmEvent, 2*units(swarmTick)), follows: map[int]*swarmFollowed{}}
	for i := range n {
		node := &swarmNode{swarm: s, i: i, versions: make([]uint32, n), changed: -1}
		peer := spread.PeerOf(string(nodeName(i)))
		node.Spread = spread.New(peer, node, rand.New(rand.NewPCG(seed, s.rng.Uint64())))
		s.nodes, s.at[peer] = append(s.nodes, node), node
		s.name(i)
	}
	peers := slices.Sorted(maps.Keys(s.at))
	for _, node := range s.nodes {
		for _, p := range peers {
			node.Join(s.clock(), p)
		}
		node.stagger = s.rng.Int64N(units(time.Second))
		s.put(1+s.rng.Int64N(units(swarmTick)), swarmEvent{to: node})
	}
	return s
}

// name gives the record of that number a slot.
func (s *swarm) name(i int) {
	at := spread.Slot(spread.PeerOf(fmt.Sprint("slot-", i)))
	s.names, s.slots[at] = append(s.names, at), i
}

// Take and Get are spread.Records.
func (n *swarmNode) Take(raw []byte) (spread.Slot, uint64, spread.Verdict) {
	i, version := int(binary.BigEndian.Uint32(raw)), binary.BigEndian.Uint32(raw[4:])
	have := n.version(i)
	switch {
	case version < have:
		return n.swarm.names[i], uint64(version), spread.Stale
	case version == have:
		return n.swarm.names[i], uint64(version), spread.Known
	}
	n.set(i, version)
	return n.swarm.names[i], uint64(version), spread.Fresh
}

func (n *swarmNode) Get(at spread.Slot) []byte {
	i := n.swarm.slots[at]
	if v := n.version(i); v > 0 {
		return n.swarm.raw(i, v)
	}
	return nil
}

func (n *swarmNode) version(i int) uint32 {
	if i < len(n.versions) {
		return n.versions[i]
	}
	return 0
}

func (n *swarmNode) set(i int, version uint32) {
	for i >= len(n.versions) {
		n.versions = append(n.versions, 0)
	}
	before := n.versions[i]
	n.versions[i] = version
	if f := n.swarm.follows[i]; f != nil && before < f.version && version >= f.version {
		n.swarm.held(i, f)
	}
}

func (s *swarm) raw(i int, version uint32) []byte {
	size := s.size.report
	if i >= len(s.nodes) {
		size = s.size.location
	}
	b := make([]byte, max(size, swarmRecord))
	binary.BigEndian.PutUint32(b, uint32(i))
	binary.BigEndian.PutUint32(b[4:], version)
	return b
}

func (s *swarm) held(i int, f *swarmFollowed) {
	f.held++
	n := len(s.nodes)
	if f.counts {
		s.spread[f.record].took(time.Duration(s.now-f.since)*swarmUnit, f.held, n)
		if f.record == report {
			s.spread[told].took(time.Duration(s.now-f.told)*swarmUnit, f.held, n)
		}
	}
	if f.held == n {
		delete(s.follows, i)
	}
}

func (t *spreadTimes) took(d time.Duration, held, n int) {
	if held == (99*n+99)/100 {
		t.most = append(t.most, d)
	}
	if held == n {
		t.all = append(t.all, d)
	}
}

func (s *swarm) put(after int64, e swarmEvent) {
	at := (s.now + after) % int64(len(s.wheel))
	s.wheel[at] = append(s.wheel[at], e)
}

// post sends packets as the network of the worlds does.
func (s *swarm) post(from *swarmNode, packets []spread.Packet) {
	for _, p := range packets {
		to := s.at[p.To]
		size := len(p.Bytes) + framing
		from.sent += size
		if !p.Stream && s.rng.Float64() < s.loss {
			continue
		}
		to.received += size
		delay := s.delay(from, to)
		delay += time.Duration(s.rng.Float64() * float64(delay) / 10)
		if s.rng.Float64() < reordered {
			delay += maxDelay
		}
		s.put(1+units(delay), swarmEvent{to, p.Bytes})
		if !p.Stream && s.rng.Float64() < duplicated {
			s.put(1+units(delay), swarmEvent{to, p.Bytes})
		}
	}
}

// delay is drawn evenly on a logarithmic scale, for each link once and for all.
func (s *swarm) delay(from, to *swarmNode) time.Duration {
	share := rand.New(rand.NewPCG(uint64(from.i), uint64(to.i))).Float64()
	return time.Duration(float64(minDelay) * math.Pow(float64(maxDelay)/float64(minDelay), share))
}

// say has a node say its record of a number.
func (s *swarm) say(n *swarmNode, i int, f *swarmFollowed, twice bool) {
	version := n.version(i) + 1
	if f != nil {
		// An older one that is still under way counts with this one.
		if s.follows[i] == nil {
			f.version, f.told = version, s.now
			s.follows[i] = f
			if f.counts {
				s.spread[f.record].begun++
				if f.record == report {
					s.spread[told].begun++
				}
			}
		}
	}
	n.set(i, version)
	raw := s.raw(i, version)
	s.post(n, n.Say(s.clock(), s.names[i], uint64(version), raw, twice))
}

// second is what a node does once a second: as gossip says it, with its dead bands.
func (s *swarm) second(n *swarmNode, counts bool) {
	space, repeat := gossip.Spaces(len(s.nodes))
	if n.changed < 0 && s.rng.Float64() < changeOdds(time.Second) {
		n.changed = s.now
	}
	quiet := time.Duration(s.now-n.said) * swarmUnit
	switch {
	case n.said == 0, n.changed >= 0 && quiet >= space:
		var f *swarmFollowed
		if n.changed >= 0 {
			f = &swarmFollowed{since: n.changed, record: report, counts: counts}
		}
		s.say(n, n.i, f, false)
	case quiet >= repeat:
		s.say(n, n.i, nil, false)
	default:
		return
	}
	n.changed, n.said = -1, s.now
}

// run lets time pass; what changes is followed if it counts.
func (s *swarm) run(d time.Duration, counts bool) {
	moves := float64(len(s.nodes)) / nodesAMove / time.Minute.Seconds() // a second
	for end := s.now + units(d); s.now < end; {
		s.now++
		at := s.now % int64(len(s.wheel))
		events := s.wheel[at]
		s.wheel[at] = nil
		for _, e := range events {
			if e.packet != nil {
				s.post(e.to, e.to.Receive(s.clock(), e.packet))
				continue
			}
			s.post(e.to, e.to.Tick(s.clock()))
			if (s.now+e.to.stagger)/units(swarmTick)%int64(time.Second/swarmTick) == 0 {
				s.second(e.to, counts)
			}
			s.put(units(swarmTick), e)
		}
		if s.rng.Float64() < moves*swarmUnit.Seconds() {
			for range 2 { // both ends announce it
				i := len(s.names)
				s.name(i)
				n := s.nodes[s.rng.IntN(len(s.nodes))]
				s.say(n, i, &swarmFollowed{since: s.now, record: location, counts: counts}, true)
			}
		}
	}
}

// swarmed is what a swarm has shown.
type swarmed struct {
	Nodes                  int
	Seed                   uint64
	Sent, SentMax          float64 // bytes a node and second
	Report, Told, Location times
}

// measureSwarm lets a swarm settle and measures it.
func measureSwarm(n int, seed uint64, loss float64, size payload, length time.Duration, progress io.Writer) swarmed {
	busy := processors()
	s := newSwarm(n, seed, loss, size)
	fmt.Fprintf(progress, "%s  swarm of %d made, %.0f s of processors\n", wall(), n, processors()-busy)
	s.run(15*time.Second, false)
	for _, node := range s.nodes {
		node.sent, node.received = 0, 0
	}
	fmt.Fprintf(progress, "%s  swarm of %d has settled, %.0f s of processors\n", wall(), n, processors()-busy)
	s.run(length, true)
	r := swarmed{Nodes: n, Seed: seed}
	for _, node := range s.nodes {
		r.Sent += float64(node.sent) / length.Seconds() / float64(n)
		r.SentMax = max(r.SentMax, float64(node.sent)/length.Seconds())
	}
	for waited := time.Duration(0); waited < follow && s.open() > 0; waited += time.Second {
		s.run(time.Second, false)
	}
	r.Report = timesOf(s.spread[report].most, s.spread[report].all, s.spread[report].begun, size.report)
	r.Told = timesOf(s.spread[told].most, s.spread[told].all, s.spread[told].begun, size.report)
	r.Location = timesOf(s.spread[location].most, s.spread[location].all, s.spread[location].begun, size.location)
	fmt.Fprintf(progress, "%s  swarm of %d: %.1f KB/s sent, most %.1f; reports %s; since told %s; locations %s; %.0f s of processors\n",
		wall(), n, r.Sent/1000, r.SentMax/1000, r.Report, r.Told, r.Location, processors()-busy)
	return r
}

func (s *swarm) open() int {
	open := 0
	for _, f := range s.follows {
		if f.counts {
			open++
		}
	}
	return open
}
