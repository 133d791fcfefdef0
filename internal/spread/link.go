package spread

import (
	"math/bits"
	"slices"
	"time"
)

const (
	// window is the least time between two packets to one member that are not full.
	window = 200 * time.Millisecond
	// receiptTime is how often frames are acknowledged. It is done at once when one is missing
	// or came twice, and when it is the first after that time; and quietTime after the last.
	receiptTime = time.Second
	quietTime   = 300 * time.Millisecond
	// repeatTime is after which time the last frame is repeated that was not acknowledged;
	// firstRepeatTime the same after a pause, streamRepeatTime that of a stream.
	repeatTime       = 350 * time.Millisecond
	firstRepeatTime  = 200 * time.Millisecond
	streamRepeatTime = 2 * time.Second
	// gapTime is the least time between two receipts that tell of the same gap, gapReceipts how
	// many of these there are, and resendTime the least time between two sendings of a frame.
	gapTime     = 150 * time.Millisecond
	gapReceipts = 12
	resendTime  = 100 * time.Millisecond
	// urgeTime is after which time without a receipt every frame asks for one. A member that
	// answers none of so many in silentTime is bypassed for bypassTime.
	urgeTime   = 1200 * time.Millisecond
	silentTime = 2 * time.Second
	mostUrged  = 6
	bypassTime = 5 * time.Second
	// maxAhead is by how much a frame's number may be greater than the last.
	maxAhead = 1 << 12
	// maxFlight is how many frames are kept until they are acknowledged: as many as a
	// receipt tells of.
	maxFlight = 65
	// maxQueue bounds what waits for one member.
	maxQueue = 1 << 20
)

// link is what is known of one other member.
type link struct {
	peer   Peer
	active bool
	gone   bool
	used   time.Time
	// silent: it does not answer, and nothing is sent to it until then; bypass: it has refused
	// to pass on.
	silent, bypass time.Time

	session uint32 // of own frames
	number  uint16 // of the last
	batches []batch
	queued  int // bytes
	filled  time.Time
	flight  []flying
	sent    time.Time     // last
	repeat  time.Duration // after which the last is repeated
	asked   time.Time     // since when an answer is due; zero when none is
	urged   int           // frames since then that asked for one
	in      inbound
}

// batch is records that go the same way.
type batch struct {
	tree int
	arc  arc
	raws [][]byte
}

// flying is a frame that was not acknowledged.
type flying struct {
	number uint16
	tree   int
	arc    arc
	raws   [][]byte
	stream bool
	sent   time.Time
}

// inbound is which frames of the other's session have come.
type inbound struct {
	session  uint32
	newest   uint16
	before   uint64    // bit i: newest-1-i has come, or is given up
	owed     time.Time // since when a receipt is; zero when none is
	heard    time.Time
	hasten   bool      // it is owed at once
	told     time.Time // of the gap
	gapTimes int
}

func (s *Spread) link(p Peer, now time.Time) *link {
	l := s.links[p]
	if l == nil {
		l = &link{peer: p, session: s.rng.Uint32() | 1}
		s.links[p] = l
	}
	l.used = now
	if !l.active {
		l.active = true
		s.active = append(s.active, l)
	}
	return l
}

func (l *link) busy() bool {
	return l.queued > 0 || len(l.flight) > 0 || !l.in.owed.IsZero()
}

func (s *Spread) queue(l *link, tree int, a arc, raws [][]byte) {
	var to *batch
	for i := range l.batches {
		if b := &l.batches[i]; b.arc == a && (b.tree == tree || a == arc{}) {
			to = b
		}
	}
	if to == nil {
		l.batches = append(l.batches, batch{tree: tree, arc: a})
		to = &l.batches[len(l.batches)-1]
	}
	for _, raw := range raws {
		if l.queued+len(raw) > maxQueue {
			s.counts.Dropped++
			continue
		}
		to.raws = append(to.raws, raw)
		l.queued += len(raw)
	}
}

// fill makes frames of what waits: of all when nothing was sent for a window, else full ones
// only.
func (s *Spread) fill(now time.Time, l *link) {
	if l.queued == 0 {
		return
	}
	all := now.Sub(l.filled) >= window
	if !all && l.queued < maxPacket-leafSize {
		return
	}
	kept := l.batches[:0]
	for _, b := range l.batches {
		for len(b.raws) > 0 {
			n, full := b.cut()
			if !full && !all {
				break
			}
			s.sendNew(now, l, flying{tree: b.tree, arc: b.arc, raws: b.raws[:n:n]})
			b.raws = b.raws[n:]
		}
		if len(b.raws) > 0 {
			kept = append(kept, b)
		}
	}
	clear(l.batches[len(kept):])
	l.batches = kept
}

// cut is how many of the records the next frame takes, and whether it is full with them.
func (b *batch) cut() (n int, full bool) {
	large := slices.IndexFunc(b.raws, func(raw []byte) bool { return len(raw) > MaxRecord })
	if large == 0 {
		return 1, true
	}
	room, most := maxPacket-leafSize, len(b.raws)
	if b.arc != (arc{}) {
		room = maxPacket - branchSize
	}
	if large > 0 {
		most = large
	}
	n = fitting(b.raws[:most], room)
	return n, n < len(b.raws)
}

func (s *Spread) sendNew(now time.Time, l *link, f flying) {
	for _, raw := range f.raws {
		l.queued -= len(raw)
		f.stream = f.stream || len(raw) > MaxRecord
	}
	l.number++
	l.filled, f.number = now, l.number
	l.flight = append(l.flight, f)
	if len(l.flight) > maxFlight {
		s.counts.Dropped++
		l.flight = l.flight[1:]
	}
	s.transmit(now, l, &l.flight[len(l.flight)-1])
}

func (s *Spread) transmit(now time.Time, l *link, f *flying) {
	switch {
	case f.stream: // it is hardly lost, and dear
		l.repeat = streamRepeatTime
	case now.Sub(l.sent) >= receiptTime:
		l.repeat = firstRepeatTime
	default:
		l.repeat = repeatTime
	}
	f.sent, l.sent = now, now
	if l.asked.IsZero() {
		l.asked = now
	}
	w := frame{kind: kindLeaf, urge: now.Sub(l.asked) >= urgeTime, from: s.self, session: l.session, number: f.number, tree: f.tree, arc: f.arc}
	if f.arc != (arc{}) {
		w.kind = kindBranch
	}
	if w.urge {
		l.urged++
	}
	w.rest = appendRecords(nil, f.raws...)
	s.send(l.peer, f.stream, w)
}

// receipt takes the frames off that have come, and sends the missing again.
func (s *Spread) receipt(now time.Time, l *link, f frame) {
	if f.session != l.session || int16(l.number-f.number) < 0 {
		s.counts.Absurd++
		return
	}
	s.link(l.peer, now)
	l.silent, l.asked, l.urged = time.Time{}, time.Time{}, 0
	if f.kind == kindRefusal {
		s.refused(now, l, f.number)
		return
	}
	kept := l.flight[:0]
	for _, fl := range l.flight {
		behind := f.number - fl.number
		switch {
		case int16(behind) < 0:
		case behind == 0 || behind <= 64 && f.before>>(behind-1)&1 == 1:
			continue
		case behind > 64:
			s.counts.Dropped++
			continue
		case now.Sub(fl.sent) >= resendTime:
			s.counts.Resent++
			s.transmit(now, l, &fl)
		}
		kept = append(kept, fl)
	}
	clear(l.flight[len(kept):])
	l.flight = kept
	if len(kept) > 0 && l.asked.IsZero() {
		l.asked = now
	}
}

// refused passes a frame on in the stead of a member that cannot yet.
func (s *Spread) refused(now time.Time, l *link, number uint16) {
	for i, fl := range l.flight {
		if fl.number == number {
			l.flight = append(l.flight[:i], l.flight[i+1:]...)
			l.bypass = now.Add(bypassTime)
			s.pass(now, fl.tree, s.ring.branches(fl.arc, fl.tree), fl.raws)
			break
		}
	}
	if len(l.flight) > 0 {
		l.asked = now
	}
}

// abandon gives up what a member has not acknowledged; its branches get it from here.
func (s *Spread) abandon(now time.Time, l *link) {
	for _, fl := range l.flight {
		s.pass(now, fl.tree, s.ring.branches(fl.arc, fl.tree), fl.raws)
	}
	for _, b := range l.batches {
		s.pass(now, b.tree, s.ring.branches(b.arc, b.tree), b.raws)
	}
	l.flight, l.batches, l.queued = nil, nil, 0
	l.asked, l.urged = time.Time{}, 0
}

// note takes a frame's number down; false: it has come before, or is absurd.
func (s *Spread) note(now time.Time, l *link, f frame) bool {
	in := &l.in
	ahead := f.number - in.newest
	fresh := true
	switch {
	case in.session != f.session:
		*in = inbound{session: f.session, newest: f.number, before: ^uint64(0)}
		if f.number <= 64 { // it is the beginning of the session that is missing
			in.before <<= max(1, f.number) - 1
		}
	case int16(ahead) > maxAhead:
		s.counts.Absurd++
		return false
	case int16(ahead) > 0:
		in.before = (in.before<<1 | 1) << (ahead - 1)
		in.newest, in.gapTimes = f.number, 0
	case ahead == 0 || -ahead > 64 || in.before>>(-ahead-1)&1 == 1:
		s.counts.Repeated++
		in.hasten, fresh = true, false
	default:
		in.before |= 1 << (-ahead - 1)
	}
	in.hasten = in.hasten || f.urge || now.Sub(in.heard) >= receiptTime
	in.heard = now
	if in.owed.IsZero() {
		in.owed = now
	}
	return fresh
}

// missing tells whether a frame is missing that may still come.
func (in *inbound) missing() bool { return bits.OnesCount64(in.before) < 64 }

// attend does what time brings: receipts, repetitions, and giving up.
func (s *Spread) attend(now time.Time, l *link) {
	in := &l.in
	gap := in.missing() && in.session != 0 && in.gapTimes < gapReceipts && now.Sub(in.told) >= gapTime
	if !in.owed.IsZero() && (gap || in.hasten || now.Sub(in.owed) >= receiptTime || now.Sub(in.heard) >= quietTime) {
		in.owed, in.hasten = time.Time{}, false
		if gap {
			in.told, in.gapTimes = now, in.gapTimes+1
			in.owed = now // tell again unless it comes
		}
		s.send(l.peer, false, frame{kind: kindReceipt, from: s.self, session: in.session, number: in.newest, before: in.before})
	}
	if len(l.flight) == 0 {
		return
	}
	switch {
	case now.Sub(l.asked) >= silentTime && l.urged >= mostUrged:
		s.counts.Bypassed++
		l.silent = now.Add(bypassTime)
		s.abandon(now, l)
	case now.Sub(l.sent) >= l.repeat:
		s.counts.Resent++
		s.transmit(now, l, &l.flight[len(l.flight)-1])
	}
}
