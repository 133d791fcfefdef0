// Package spread brings records to every member of a cluster at about the least cost there
// is: each member gets each record about once.
//
// All members stand on a ring in the order of their names' hashes, and every member knows
// all others. There are several trees over the ring; each member passes records on in one
// of them and only receives in the others, so that the load is even (interior-disjoint
// trees: Castro et al., SplitStream, SOSP 2003). Who passes a record on hands each branch
// an arc of the ring to care for, rather than all computing one tree (El-Ansary et al.,
// Efficient Broadcast in Structured P2P Networks, IPTPS 2003): members that differ about
// who is a member still reach all that either knows. Frames are acknowledged link by link,
// and what is lost is sent again. Members compare what they have with a random other one
// now and then (anti-entropy: Demers et al., PODC 1987), which mends all the rest.
//
// The package is a state machine: it neither reads clocks nor sends. It is not safe for
// concurrent use.
package spread

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Slot is where a record belongs: of several for one slot the newest counts. Slots whose
// records need each other should be neighbours, in the order in which they are to be taken.
type Slot uint64

// Verdict is what became of a record.
type Verdict byte

const (
	Refused Verdict = iota // it is not to be passed on
	Stale                  // a newer one for its slot is known
	Known                  // it is the newest, and was known
	Fresh                  // it is the newest, and was not known
)

// Records keeps the newest record of every slot. What it was given it may keep only as a copy.
type Records interface {
	// Take verifies a record that another member sent, and keeps it if it is newer. Slot and
	// version are set unless it is refused.
	Take(raw []byte) (s Slot, version uint64, v Verdict)
	// Get gives the newest record, nil when there is none.
	Get(Slot) []byte
}

// Packet is to be sent to another member.
type Packet struct {
	To Peer
	// Stream: it is too large for a packet, or must arrive.
	Stream bool
	Bytes  []byte
}

const (
	// trees is in how many ways records travel; a member passes on in one.
	trees = 4
	// fanout is the greatest number of heads that a head passes on to, besides its own
	// trees-1 leaves.
	fanout = 4
	// maxForwards is how often a version of a record is passed on here. Once is the rule;
	// again when a head was bypassed, or its origin says it again.
	maxForwards = 3
	// maxBranches bounds to how many one frame is passed on when heads are silent.
	maxBranches = 128
	// echoTime is after which time an origin says a record again by another tree that has
	// not come back to it; maxEchoes how often.
	echoTime  = 5 * time.Second
	maxEchoes = 3
	// idleLink is after which time a link is forgotten.
	idleLink = time.Minute
)

// Counts are of what happened since the start.
type Counts struct {
	Malformed uint64 // frames that could not be decoded
	Absurd    uint64 // frames with numbers that no honest sender gives
	Repeated  uint64 // frames that came twice
	Resent    uint64 // frames sent again since they were lost
	Dropped   uint64 // frames given up, and records for which a queue had no room
	Bypassed  uint64 // times that a member did not answer and was passed by
	Repaired  uint64 // fresh records that came by comparing
	Strangers uint64 // frames of records from who is not known as a member
	Limited   uint64 // records not passed on, or not answered, for being asked too often
}

// Spread is one member's part.
type Spread struct {
	self    Peer
	records Records
	rng     *rand.Rand
	ring    ring
	links   map[Peer]*link
	active  []*link // those with something to do
	known   index
	said    map[Slot]*saying
	tree    int // by which was said last
	saidAt  time.Time
	repair  repair
	pruned  time.Time
	counts  Counts
	out     []Packet
}

// saying is an own record that is on its way around.
type saying struct {
	version uint64
	tree    int
	at      time.Time
	times   int
	twice   bool // to be said by two trees in any case
}

// New returns a member that is alone.
func New(self Peer, r Records, rng *rand.Rand) *Spread {
	return &Spread{self: self, records: r, rng: rng, ring: ring{self}, links: map[Peer]*link{},
		known: index{entries: map[Slot]entry{}}, said: map[Slot]*saying{}, tree: rng.IntN(trees), repair: repair{newcomer: true, wholes: map[Peer]time.Time{}}}
}

// Counts are the counts of the moment.
func (s *Spread) Counts() Counts { return s.counts }

// Newcomer tells that nobody has answered yet what there is. Until then nothing is said.
func (s *Spread) Newcomer() bool { return s.repair.newcomer }

// Waiting is how many bytes of records wait to be sent.
func (s *Spread) Waiting() int {
	n := 0
	for _, l := range s.active {
		n += l.queued
	}
	return n
}

// Join is called when a member has come.
func (s *Spread) Join(now time.Time, p Peer) {
	if s.ring.add(p) {
		s.repair.joined(s, now)
	}
}

// Leave is called when a member has left or is dead.
func (s *Spread) Leave(now time.Time, p Peer) []Packet {
	if p == s.self || !s.ring.remove(p) {
		return nil
	}
	delete(s.repair.wholes, p)
	if l := s.links[p]; l != nil {
		delete(s.links, p)
		s.abandon(now, l)
		l.gone = true
	}
	return s.flush(now)
}

// Say spreads an own record that is in Records already. One that is not said again soon is
// said twice, by different trees, so that no single member can keep it from anybody.
func (s *Spread) Say(now time.Time, at Slot, version uint64, raw []byte, twice bool) []Packet {
	s.known.set(at, version, now)
	own := &saying{version: version, twice: twice}
	s.said[at] = own
	if s.together() {
		s.sayOne(now, own, raw)
	}
	return s.flush(now)
}

// together is false while there is nobody to say anything to, or a newcomer is not known yet.
func (s *Spread) together() bool { return len(s.ring) > 1 && !s.repair.newcomer }

// sayOne takes another tree than last time, but the same for what is said at about the same
// time: one may need the other, and they arrive in this order.
func (s *Spread) sayOne(now time.Time, own *saying, raw []byte) {
	if now.Sub(s.saidAt) >= window {
		s.tree, s.saidAt = (s.tree+1)%trees, now
	}
	if own.times > 0 && s.tree == own.tree {
		s.tree = (s.tree + 1) % trees
	}
	own.tree, own.at, own.times = s.tree, now, own.times+1
	s.enter(now, s.tree, raw)
}

// enter brings a record to where its way begins.
func (s *Spread) enter(now time.Time, tree int, raw []byte) {
	root := s.ring.root(tree)
	s.pass(now, tree, []branch{{root, around(root)}}, [][]byte{raw})
}

// pass queues records for branches. In the stead of one that does not answer, and of this
// member itself, its branches get them.
func (s *Spread) pass(now time.Time, tree int, to []branch, raws [][]byte) {
	for n := 0; len(to) > 0; n++ {
		if n == maxBranches {
			s.counts.Dropped += uint64(len(raws) * len(to))
			return
		}
		b := to[0]
		to = to[1:]
		var l *link
		if b.peer != s.self {
			l = s.link(b.peer, now)
		}
		if !b.leaf() && (l == nil || now.Before(l.bypass) || now.Before(l.silent)) {
			to = append(to, s.ring.branches(b.arc, tree)...)
			b.arc = arc{}
		}
		if l != nil && !now.Before(l.silent) {
			s.queue(l, tree, b.arc, raws)
		}
	}
}

// Receive takes in what a member sent.
func (s *Spread) Receive(now time.Time, b []byte) []Packet {
	f, err := decode(b)
	if err != nil || f.from == s.self {
		s.counts.Malformed++
		return nil
	}
	switch f.kind {
	case kindLeaf, kindBranch:
		s.hear(now, f)
	case kindReceipt, kindRefusal:
		if l := s.links[f.from]; l != nil {
			s.receipt(now, l, f)
		}
	case kindDigest:
		s.compare(now, f)
	case kindWhole:
		s.tellWhole(now, f)
	case kindAnswer, kindLast:
		s.mend(now, f)
	}
	return s.flush(now)
}

func (s *Spread) hear(now time.Time, f frame) {
	if _, member := s.ring.find(f.from); member {
		l := s.link(f.from, now)
		if !s.note(now, l, f) {
			return
		}
		if f.kind == kindBranch && s.repair.newcomer {
			s.send(f.from, false, frame{kind: kindRefusal, from: s.self, session: f.session, number: f.number})
			f.kind = kindLeaf
		}
	} else {
		s.counts.Strangers++
	}
	var on [][]byte
	for raw := range records(f.rest) {
		at, version, v := s.records.Take(raw)
		if v != Known && v != Fresh {
			continue
		}
		e := s.known.set(at, version, now)
		s.echo(at, version)
		if f.kind != kindBranch {
			continue
		}
		if e.forwards == maxForwards {
			s.counts.Limited++
			continue
		}
		e.forwards++
		s.known.entries[at] = e
		on = append(on, raw)
	}
	if len(on) > 0 {
		s.pass(now, f.tree, s.ring.branches(f.arc, f.tree), on)
	}
}

// echo notes that an own record has come back.
func (s *Spread) echo(at Slot, version uint64) {
	if own := s.said[at]; own != nil && own.version == version && (!own.twice || own.times > 1) {
		delete(s.said, at)
	}
}

// sayAgain says by another tree what has not come back, or is to be said twice, and for the
// first time what was said to nobody yet.
func (s *Spread) sayAgain(now time.Time) {
	if len(s.said) == 0 || !s.together() {
		return
	}
	var due []Slot
	for at, own := range s.said {
		if own.times == 0 || now.Sub(own.at) >= echoTime {
			due = append(due, at)
		}
	}
	slices.Sort(due)
	for _, at := range due {
		own := s.said[at]
		raw := s.records.Get(at)
		if raw == nil || own.times == maxEchoes {
			delete(s.said, at)
			continue
		}
		s.sayOne(now, own, raw)
	}
}

// Busy tells whether something is under way: to be sent, acknowledged or told to have come.
func (s *Spread) Busy() bool {
	return len(s.active) > 0 || len(s.ring) > 1 && (s.repair.newcomer || s.repair.hurry > 0)
}

// Tick does what is due. It is to be called every 50 ms or so while it is Busy, else
// every half second or so.
func (s *Spread) Tick(now time.Time) []Packet {
	s.sayAgain(now)
	s.repair.tick(s, now)
	for _, l := range s.active {
		s.attend(now, l)
	}
	if now.Sub(s.pruned) >= idleLink {
		s.pruned = now
		for p, l := range s.links {
			if !l.active && now.Sub(l.used) >= idleLink && !now.Before(l.silent) {
				delete(s.links, p)
			}
		}
		s.known.prune(now, s.records)
	}
	return s.flush(now)
}

func (s *Spread) send(to Peer, stream bool, f frame) {
	s.out = append(s.out, Packet{to, stream, f.encode()})
}

// flush gives what is to be sent now.
func (s *Spread) flush(now time.Time) []Packet {
	busy := s.active[:0]
	for _, l := range s.active {
		s.fill(now, l)
		if l.active = l.busy() && !l.gone; l.active {
			busy = append(busy, l)
		}
	}
	clear(s.active[len(busy):])
	s.active = busy
	out := s.out
	s.out = nil
	return out
}
