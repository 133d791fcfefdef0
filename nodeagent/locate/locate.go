// Package locate tells the cluster where moved pods went. Both ends of a move announce it
// in gossip; the PodMigration's own record confirms what only one end has announced.
package locate

import (
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
)

// Announcer is the gossip.
type Announcer interface {
	Announce(model.Location) error
	Reconfirm()
}

// Places follows the records of moves: it announces those that this node took part in,
// and confirms those that others announce. It implements gossip.Confirmer.
type Places struct {
	node string
	log  *slog.Logger

	mu        sync.Mutex
	committed map[string]model.Location // by the PodMigration's namespace/name
	announce  Announcer
	owed      map[string]model.Location // not announced yet
	repeated  time.Time                 // when everything was announced last
}

// repeatInterval is well inside the day for which gossip remembers.
const repeatInterval = time.Hour

// New makes Places for one node.
func New(node string, log *slog.Logger) *Places {
	return &Places{node: node, log: log, committed: map[string]model.Location{}, owed: map[string]model.Location{}}
}

// To says where to announce. What was seen before is announced then.
func (p *Places) To(a Announcer) {
	p.mu.Lock()
	p.announce = a
	p.mu.Unlock()
	p.Retry()
}

// Confirmed tells whether a committed PodMigration records exactly this move.
func (p *Places) Confirmed(l model.Location) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.committed[l.Pod.Namespace+"/"+l.Migration]
	return ok && c.Origin == l.Origin && c.Pod == l.Pod && c.Node == l.Node && c.From == l.From && c.Epoch == l.Epoch && c.At.Equal(l.At)
}

// See takes in a record as a watch showed it.
func (p *Places) See(m *v1alpha1.PodMigration) {
	l, ok := Of(m)
	if !ok {
		return
	}
	key := m.Namespace + "/" + m.Name
	p.mu.Lock()
	known, was := p.committed[key]
	p.committed[key] = l
	if was && known == l {
		p.mu.Unlock()
		return
	}
	if p.mine(l) {
		p.owed[key] = l
	}
	a := p.announce
	p.mu.Unlock()
	if a != nil {
		a.Reconfirm()
	}
	p.Retry()
}

// Forget drops the record of a PodMigration that is gone.
func (p *Places) Forget(m *v1alpha1.PodMigration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.committed, m.Namespace+"/"+m.Name)
}

// Retry announces what could not be announced before, and once an hour everything again:
// gossip forgets what nobody repeats.
func (p *Places) Retry() {
	announce, due := p.due(time.Now())
	// Not under the lock: gossip asks Confirmed while it holds its own.
	for key, l := range due {
		if err := announce.Announce(l); err != nil {
			p.log.Warn("where a pod went could not be announced yet", "move", key, "error", err)
			continue
		}
		p.paid(key, l)
	}
}

// due gives a copy of what is to be announced at now, nothing while there is no gossip.
func (p *Places) due(now time.Time) (Announcer, map[string]model.Location) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.announce == nil {
		return nil, nil
	}
	if now.Sub(p.repeated) >= repeatInterval {
		p.repeated = now
		for key, l := range p.committed {
			if p.mine(l) {
				p.owed[key] = l
			}
		}
	}
	return p.announce, maps.Clone(p.owed)
}

func (p *Places) paid(key string, l model.Location) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.owed[key] == l { // else the record has changed meanwhile
		delete(p.owed, key)
	}
}

func (p *Places) mine(l model.Location) bool {
	return string(l.Node) == p.node || string(l.From) == p.node
}

// Of gives the place of a pod that its record tells. ok is false while nothing has run
// anywhere else: before the acknowledgement, and when ownership has returned.
func Of(m *v1alpha1.PodMigration) (l model.Location, ok bool) {
	s := m.Status
	if s.Decision != v1alpha1.Commit || !s.Target.Resumed || s.Returned {
		return l, false
	}
	at := m.CreationTimestamp.Time
	if s.DecidedAt != nil {
		at = s.DecidedAt.Time
	}
	return model.Location{
		Origin: string(s.Source.Origin),
		Pod:    model.PodID{Namespace: m.Namespace, Name: s.Target.PodName, UID: string(s.Target.PodUID)},
		Node:   model.NodeID(s.Target.Node), From: model.NodeID(s.Source.Node),
		Epoch: uint64(s.Epoch), Migration: m.Name, At: at.UTC(),
	}, true
}
