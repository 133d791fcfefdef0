package traffic

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/drover-project/drover/internal/model"
)

// Forgotten is after how many windows in silence a talk is.
const Forgotten = 10

// Ledger sums up exchanges. It is not safe for concurrent use; what it gives is a copy.
type Ledger struct {
	self   model.NodeID
	window time.Duration
	size   int
	from   time.Time // begin of the first exchange
	at     time.Time // end of the last one
	talks  map[ends]*account
	peers  map[model.NodeID]*peer
	// strangers is how many talks are with one who is on no node.
	strangers int
}

type ends struct{ local, remote Endpoint }

// account is sums, and what of them was in the window.
type account struct {
	sent, received model.Bytes
	recent         []part // oldest first
	last           time.Time
}

type part struct {
	at             time.Time
	sent, received model.Bytes
}

type peer struct {
	sent, received model.Bytes
	recent         map[Path][]roundTrip // oldest first
}

type roundTrip struct {
	at time.Time
	RoundTrip
}

// NewLedger gives an empty ledger of the node. It keeps at most size talks apart, a quarter of
// them with strangers; what is more goes to Other. Rates are those of the window.
func NewLedger(self model.NodeID, window time.Duration, size int) *Ledger {
	return &Ledger{self: self, window: window, size: size, talks: map[ends]*account{}, peers: map[model.NodeID]*peer{}}
}

// Feed takes what was exchanged between then and now.
func (l *Ledger) Feed(then, now time.Time, exchanges []Exchange) {
	if l.from.IsZero() {
		l.from = then
	}
	l.at = now
	inWindow := 1.0
	if wall := now.Sub(then); wall > l.window {
		inWindow = float64(l.window) / float64(wall)
	}
	for _, x := range exchanges {
		l.account(ends{x.Local, x.Remote}).add(now, x, inWindow)
		if x.Remote.Node != "" && x.Remote.Node != l.self {
			l.feedPeer(now, x)
		}
	}
	l.forget()
}

// account opens one where there is room.
func (l *Ledger) account(e ends) *account {
	if a, ok := l.talks[e]; ok {
		return a
	}
	if len(l.talks) >= l.size || e.remote.stranger() && l.strangers >= l.size/4 {
		e.remote = Other
	}
	a, ok := l.talks[e]
	if !ok {
		a = &account{}
		l.talks[e] = a
		if e.remote.stranger() {
			l.strangers++
		}
	}
	return a
}

// add takes an exchange, of which a share (0..1) was in the window.
func (a *account) add(now time.Time, x Exchange, inWindow float64) {
	a.last = now
	a.sent += x.Sent
	a.received += x.Received
	recent := part{now, model.Bytes(inWindow * float64(x.Sent)), model.Bytes(inWindow * float64(x.Received))}
	if n := len(a.recent); n > 0 && a.recent[n-1].at.Equal(now) {
		a.recent[n-1].sent += recent.sent
		a.recent[n-1].received += recent.received
		return
	}
	a.recent = append(a.recent, recent)
}

func (l *Ledger) feedPeer(now time.Time, x Exchange) {
	p := l.peers[x.Remote.Node]
	if p == nil {
		p = &peer{recent: map[Path][]roundTrip{}}
		l.peers[x.Remote.Node] = p
	}
	p.sent += x.Sent
	p.received += x.Received
	if x.RoundTrip.Segments == 0 {
		return
	}
	path := PodPath
	if x.Local.isNode() && x.Remote.isNode() {
		path = NodePath
	}
	if n := len(p.recent[path]); n > 0 && p.recent[path][n-1].at.Equal(now) {
		p.recent[path][n-1].RoundTrip = p.recent[path][n-1].and(x.RoundTrip)
		return
	}
	p.recent[path] = append(p.recent[path], roundTrip{now, x.RoundTrip})
}

// forget drops what has left the window, and who has long been silent.
func (l *Ledger) forget() {
	begin, silent := l.at.Add(-l.window), l.at.Add(-Forgotten*l.window)
	for e, a := range l.talks {
		a.recent = slices.DeleteFunc(a.recent, func(p part) bool { return !p.at.After(begin) })
		if a.last.After(silent) {
			continue
		}
		delete(l.talks, e)
		if e.remote.stranger() {
			l.strangers--
		}
	}
	for _, p := range l.peers {
		for path, all := range p.recent {
			p.recent[path] = slices.DeleteFunc(all, func(r roundTrip) bool { return !r.at.After(begin) })
		}
	}
}

// Keep drops all peers that are not nodes any more.
func (l *Ledger) Keep(is func(model.NodeID) bool) {
	maps.DeleteFunc(l.peers, func(id model.NodeID, _ *peer) bool { return !is(id) })
}

// Talks gives all accounts, those first that carried most in the window, then in all.
func (l *Ledger) Talks() []Talk {
	wall := min(l.window, l.at.Sub(l.from)).Seconds()
	talks := make([]Talk, 0, len(l.talks))
	for e, a := range l.talks {
		t := Talk{Local: e.local, Remote: e.remote, Sent: a.sent, Received: a.received}
		if wall > 0 {
			for _, p := range a.recent {
				t.Sending += model.Rate(float64(p.sent) / wall)
				t.Receiving += model.Rate(float64(p.received) / wall)
			}
		}
		talks = append(talks, t)
	}
	slices.SortFunc(talks, func(a, b Talk) int {
		return cmp.Or(cmp.Compare(b.Sending+b.Receiving, a.Sending+a.Receiving), cmp.Compare(b.Sent+b.Received, a.Sent+a.Received),
			a.Local.compare(b.Local), a.Remote.compare(b.Remote))
	})
	return talks
}

func (e Endpoint) compare(o Endpoint) int {
	return cmp.Or(cmp.Compare(e.Node, o.Node), cmp.Compare(e.Pod.Namespace, o.Pod.Namespace), cmp.Compare(e.Pod.Name, o.Pod.Name),
		cmp.Compare(e.Pod.UID, o.Pod.UID), cmp.Compare(e.Address, o.Address))
}

// Peers gives the accounts of the other nodes, by name.
func (l *Ledger) Peers() []Peer {
	peers := make([]Peer, 0, len(l.peers))
	for _, id := range slices.Sorted(maps.Keys(l.peers)) {
		p := l.peers[id]
		told := Peer{Node: id, Sent: p.sent, Received: p.received, RoundTrips: map[Path]RoundTrip{}}
		for path, all := range p.recent {
			var sum RoundTrip
			for _, r := range all {
				sum = sum.and(r.RoundTrip)
			}
			if sum.Segments > 0 {
				told.RoundTrips[path] = sum
			}
		}
		peers = append(peers, told)
	}
	return peers
}
