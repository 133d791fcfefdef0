package gossip

import (
	"context"
	"encoding/binary"
	"io"
	"log"
	"math/rand/v2"
	"sync"

	"github.com/hashicorp/memberlist"

	"github.com/drover-project/drover/internal/gossip/gossiptest"
	"github.com/drover-project/drover/internal/model"
)

// payload is how many bytes the records of Drover have that the baseline spreads, too.
type payload struct{ report, location int }

// plain is memberlist with its defaults: it broadcasts what it is told, hands on what is new
// to it, and exchanges all it knows with each push/pull. Nothing is signed or encrypted.
type plain struct {
	i     int
	cfg   *memberlist.Config
	seeds func() []string
	h     heard
	size  payload
	rng   *rand.Rand
	queue *memberlist.TransmitLimitedQueue

	mu    sync.Mutex
	ml    *memberlist.Memberlist
	known map[string][]byte // by slot
	last  uint64
	alive map[int]bool
}

func baseline(size payload, seed uint64) maker {
	return func(i int, seeds func() []string, p *gossiptest.Port, h heard) (member, error) {
		m := &plain{i: i, seeds: seeds, h: h, size: size, rng: rand.New(rand.NewPCG(seed, uint64(i)+1000)),
			known: map[string][]byte{}, alive: map[int]bool{}}
		m.queue = &memberlist.TransmitLimitedQueue{NumNodes: m.members, RetransmitMult: 4}
		m.cfg = memberlist.DefaultLANConfig()
		m.cfg.Name, m.cfg.Transport = string(nodeName(i)), p
		m.cfg.Logger = log.New(io.Discard, "", 0)
		m.cfg.Delegate, m.cfg.Events = m, m
		return m, nil
	}
}

func (m *plain) members() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(1, len(m.alive))
}

func (m *plain) run(ctx context.Context) error {
	ml, err := memberlist.Create(m.cfg)
	if err != nil {
		return err
	}
	defer ml.Shutdown()
	m.mu.Lock()
	m.ml = ml
	m.mu.Unlock()
	rejoin(ctx, m.seeds, m.lives, ml.Join)
	return nil
}

// compare tells another member all there is, and is told.
func (m *plain) compare(with string) {
	m.mu.Lock()
	ml := m.ml
	m.mu.Unlock()
	if ml != nil {
		_, _ = ml.Join([]string{with}) // if it fails it takes longer
	}
}

// A message is kind, origin, version, and bytes that nobody can compress in the place of the
// rest.
const head = 1 + 4 + 8

func (m *plain) say(k kind, size int) {
	m.mu.Lock()
	m.last++
	b := make([]byte, max(size, head))
	b[0] = byte(k)
	binary.BigEndian.PutUint32(b[1:], uint32(m.i))
	binary.BigEndian.PutUint64(b[5:], m.last)
	for i := head; i < len(b); i++ {
		b[i] = byte(m.rng.Uint32())
	}
	m.mu.Unlock()
	m.take(b)
}

func (m *plain) tell(changed bool) error {
	if changed {
		m.say(report, m.size.report)
	}
	return nil
}

func (m *plain) announce(model.Location) error {
	m.say(location, m.size.location)
	return nil
}

// slot keeps the newest report of each origin and every location.
func slot(b []byte) string {
	if kind(b[0]) == location {
		return string(b[:head])
	}
	return string(b[:5])
}

func (m *plain) take(b []byte) {
	if len(b) < head {
		return
	}
	at, version := slot(b), binary.BigEndian.Uint64(b[5:])
	m.mu.Lock()
	old, is := m.known[at]
	news := !is || binary.BigEndian.Uint64(old[5:]) < version
	if news {
		m.known[at] = b
	}
	m.mu.Unlock()
	if news {
		m.h(m.i, kind(b[0]), int(binary.BigEndian.Uint32(b[1:])), version, len(b))
		m.queue.QueueBroadcast(said{at, b})
	}
}

type said struct {
	slot string
	b    []byte
}

func (s said) Name() string                          { return s.slot }
func (s said) Message() []byte                       { return s.b }
func (s said) Finished()                             {}
func (s said) Invalidates(memberlist.Broadcast) bool { return false }

func (m *plain) NodeMeta(int) []byte { return nil }

func (m *plain) NotifyMsg(b []byte) { m.take(append([]byte(nil), b...)) }

func (m *plain) GetBroadcasts(overhead, limit int) [][]byte {
	return m.queue.GetBroadcasts(overhead, limit)
}

func (m *plain) LocalState(bool) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []byte
	for _, b := range m.known {
		out = append(binary.AppendUvarint(out, uint64(len(b))), b...)
	}
	return out
}

func (m *plain) MergeRemoteState(b []byte, _ bool) {
	for len(b) > 0 {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			return
		}
		m.take(append([]byte(nil), b[size:size+int(n)]...))
		b = b[size+int(n):]
	}
}

func (m *plain) NotifyJoin(n *memberlist.Node)   { m.note(n, true) }
func (m *plain) NotifyLeave(n *memberlist.Node)  { m.note(n, false) }
func (m *plain) NotifyUpdate(n *memberlist.Node) {}

func (m *plain) note(n *memberlist.Node, alive bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if alive {
		m.alive[nodeNumber(model.NodeID(n.Name))] = true
	} else {
		delete(m.alive, nodeNumber(model.NodeID(n.Name)))
	}
}

func (m *plain) picture() (nodes []uint64, locations uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.known {
		i := int(binary.BigEndian.Uint32(b[1:]))
		if kind(b[0]) == location {
			locations += binary.BigEndian.Uint64(b[5:]) * uint64(i+1)
			continue
		}
		for len(nodes) <= i {
			nodes = append(nodes, 0)
		}
		if i != m.i {
			nodes[i] = binary.BigEndian.Uint64(b[5:])
		}
	}
	return nodes, locations
}

func (m *plain) lives(yield func(node int, alive bool) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.alive {
		if !yield(i, true) {
			return
		}
	}
}
