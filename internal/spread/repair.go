package spread

import (
	"encoding/binary"
	"maps"
	"math/bits"
	"slices"
	"time"
)

const (
	// comparePerMember is the time between two comparisons, each of as many slots as fit into
	// a packet, for each member, since with them grows what must be carried besides;
	// compareLeast and compareMost bound it. hurryTime is the same after joining, or when many
	// others have joined.
	comparePerMember = 2 * time.Millisecond
	compareLeast     = time.Second
	compareMost      = 4 * time.Second
	hurryTime        = 200 * time.Millisecond
	// hurryRounds is how often everything is compared in a hurry.
	hurryRounds = 3
	// settleTime is how long a record is known before others are asked to have it too: until
	// then it is on its way to them.
	settleTime = 4 * time.Second
	// answerRate and answerBurst bound what is answered, in bytes a second and at once.
	answerRate  = 64 << 10
	answerBurst = 128 << 10
	// wholeSpace is the least time between two answers with everything; wholeTime how long
	// one is waited for before another member is asked, and wholeMost the same while it comes, and
	// the least time between two answers to one member.
	wholeSpace = time.Second / 2
	wholeTime  = time.Second
	wholeMost  = 10 * time.Second
	// much is the share of members, 1 in so many, that makes for a hurry by joining.
	much = 20
	// wholeChunk is how much a stream of everything holds.
	wholeChunk = 256 << 10
)

// repair is the state of anti-entropy.
type repair struct {
	newcomer  bool // everything is still to be asked for: nothing can be passed on
	asked     time.Time
	told      time.Time // an answer, last
	next      time.Time
	from      Slot // where the next comparison begins
	hurry     int  // comparisons left to do in a hurry
	since     time.Time
	newcomers int // joined since then
	room      int // bytes that may be answered
	filled    time.Time
	whole     time.Time          // when everything was told last
	wholes    map[Peer]time.Time // and to whom, of the last wholeMost
}

// joined is called when a member has come.
func (r *repair) joined(s *Spread, now time.Time) {
	if now.Sub(r.since) > 10*time.Second {
		r.since, r.newcomers = now, 0
	}
	if r.newcomers++; r.newcomers*much >= len(s.ring) {
		r.since, r.newcomers = now, 0
		r.rush(s)
	}
}

// rush has everything compared soon.
func (r *repair) rush(s *Spread) { r.hurry = hurryRounds * (1 + len(s.known.order)/entriesAtLeast) }

// tick compares when it is time to.
func (r *repair) tick(s *Spread, now time.Time) {
	if len(s.ring) == 1 {
		return
	}
	if r.newcomer {
		r.askWhole(s, now)
		return
	}
	if now.Before(r.next) {
		return
	}
	wait := min(max(comparePerMember*time.Duration(len(s.ring)), compareLeast), compareMost)
	if r.hurry > 0 {
		r.hurry--
		wait = hurryTime
	}
	// Members shall not do it all at once.
	r.next = now.Add(wait/2 + time.Duration(s.rng.Int64N(int64(wait))))
	s.send(s.partner(), false, s.digest())
}

func (s *Spread) partner() Peer {
	for {
		if p := s.ring[s.rng.IntN(len(s.ring))]; p != s.self {
			return p
		}
	}
}

func (r *repair) askWhole(s *Spread, now time.Time) {
	if wait := now.Sub(r.asked); wait < wholeTime || wait < wholeMost && now.Sub(r.told) < wholeTime {
		return
	}
	r.asked = now
	s.send(s.partner(), false, frame{kind: kindWhole, from: s.self})
}

// entriesAtLeast is how many entries a digest has room for in any case.
const entriesAtLeast = (maxPacket - prefixSize - 3*8) / (binary.MaxVarintLen32 + 1)

// mark is a slot's version in a digest. The nonce makes two that agree by chance differ the
// next time.
func mark(nonce uint64, at Slot, version uint64) byte {
	hi, lo := bits.Mul64(uint64(at)^nonce^0x9e3779b97f4a7c15, version^bits.RotateLeft64(nonce, 32)^0xd1b54a32d192ed03)
	return byte((hi ^ lo) >> 32)
}

// digest tells what is known of the next slots: of each by how much the upper half of the
// slot is greater than the last's, and a mark. When the last slot is told, the range goes to
// the end, and the next comparison begins again.
func (s *Spread) digest() frame {
	f := frame{kind: kindDigest, from: s.self, nonce: s.rng.Uint64(), first: s.repair.from, last: ^Slot(0)}
	order := s.known.slots()
	begin, _ := slices.BinarySearch(order, f.first)
	last := uint64(f.first) >> 32
	s.repair.from = 0
	for _, at := range order[begin:] {
		if len(f.rest) > maxPacket-prefixSize-3*8-binary.MaxVarintLen32-1 {
			f.last, s.repair.from = at-1, at
			break
		}
		up := uint64(at) >> 32
		f.rest = append(binary.AppendUvarint(f.rest, up-last), mark(f.nonce, at, s.known.entries[at].version))
		last = up
	}
	return f
}

// marked is an entry of a digest.
type marked struct {
	upper uint32
	mark  byte
}

func marks(f frame) (map[marked]bool, bool) {
	c := cursor{b: f.rest, ok: true}
	all := map[marked]bool{}
	for up := uint64(f.first) >> 32; len(c.b) > 0; {
		delta := c.uvarint()
		up += delta
		if delta > 1<<32 || up > uint64(f.last)>>32 {
			return nil, false
		}
		all[marked{uint32(up), c.byte()}] = true
		if !c.ok {
			return nil, false
		}
	}
	return all, true
}

// compare answers a digest with what its sender has not.
func (s *Spread) compare(now time.Time, f frame) {
	theirs, ok := marks(f)
	if !ok {
		s.counts.Malformed++
		return
	}
	order := s.known.slots()
	begin, _ := slices.BinarySearch(order, f.first)
	var b answer
	for _, at := range order[begin:] {
		if at > f.last {
			break
		}
		e := s.known.entries[at]
		if theirs[marked{uint32(at >> 32), mark(f.nonce, at, e.version)}] || now.UnixNano()-e.heard < int64(settleTime) {
			continue
		}
		raw := s.records.Get(at)
		if raw == nil {
			continue
		}
		if !s.repair.allow(now, len(raw)) {
			s.counts.Limited++
			break
		}
		b.add(s, f.from, raw, maxPacket)
	}
	b.end(s, f.from, kindAnswer)
}

// allow takes from what may be answered.
func (r *repair) allow(now time.Time, n int) bool {
	r.room = min(answerBurst, r.room+int(min(now.Sub(r.filled), time.Minute)*answerRate/time.Second))
	r.filled = now
	if r.room < n {
		return false
	}
	r.room -= n
	return true
}

// answer is a frame of records that is sent when it is full.
type answer struct {
	raws   [][]byte
	size   int
	stream bool
}

func (b *answer) add(s *Spread, to Peer, raw []byte, limit int) {
	if b.size+runSize(raw)+prefixSize > limit {
		b.end(s, to, kindAnswer)
	}
	b.stream = b.stream || len(raw) > MaxRecord
	b.raws, b.size = append(b.raws, raw), b.size+runSize(raw)
}

func (b *answer) end(s *Spread, to Peer, kind byte) {
	if len(b.raws) > 0 || kind == kindLast {
		s.send(to, b.stream, frame{kind: kind, from: s.self, rest: appendRecords(nil, b.raws...)})
	}
	*b = answer{}
}

// tellWhole answers a newcomer with everything.
func (s *Spread) tellWhole(now time.Time, f frame) {
	r := &s.repair
	maps.DeleteFunc(r.wholes, func(_ Peer, told time.Time) bool { return now.Sub(told) >= wholeMost })
	_, lately := r.wholes[f.from]
	if _, member := s.ring.find(f.from); !member || lately || now.Sub(r.whole) < wholeSpace {
		s.counts.Limited++
		return
	}
	r.whole, r.wholes[f.from] = now, now
	b := answer{stream: true}
	for _, at := range s.known.slots() {
		if raw := s.records.Get(at); raw != nil {
			b.add(s, f.from, raw, wholeChunk)
			b.stream = true
		}
	}
	b.stream = true
	b.end(s, f.from, kindLast)
}

// mend takes in what others have and this member had not.
func (s *Spread) mend(now time.Time, f frame) {
	for raw := range records(f.rest) {
		at, version, v := s.records.Take(raw)
		if v == Fresh {
			s.counts.Repaired++
			s.known.set(at, version, now)
		}
	}
	s.repair.told = now
	if f.kind == kindLast && s.repair.newcomer {
		s.repair.newcomer = false
		s.repair.rush(s)
	}
}
