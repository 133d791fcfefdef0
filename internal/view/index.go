package view

import (
	"cmp"
	"sync"

	"github.com/drover-project/drover/internal/model"
)

// Place is where a pod is by what its node says, with the whole name that it says.
type Place struct {
	Pod  model.PodID
	Node model.NodeID
	// Alive tells whether the node was held for alive.
	Alive bool
}

// Index finds pods by name and by UID. It is built when it is first asked; snapshots among
// which no pod and no node came, went or died share one.
type Index struct {
	nodes  map[model.NodeID]Node
	once   sync.Once
	byName map[podName]Place
	byUID  map[string]Place
}

type podName struct{ namespace, name string }

// NewIndex makes the index of the pods of nodes, which must not be changed any more.
func NewIndex(nodes map[model.NodeID]Node) *Index { return &Index{nodes: nodes} }

func (x *Index) build() {
	n := 0
	for _, node := range x.nodes {
		n += len(node.State.Pods)
	}
	x.byName, x.byUID = make(map[podName]Place, n), make(map[string]Place, n)
	for id, node := range x.nodes {
		for _, p := range node.State.Pods {
			here := Place{Pod: p, Node: id, Alive: node.Alive}
			name := podName{p.Namespace, p.Name}
			if there, known := x.byName[name]; !known || better(here, there) {
				x.byName[name] = here
			}
			if there, known := x.byUID[p.UID]; !known || better(here, there) {
				x.byUID[p.UID] = here
			}
		}
	}
	x.nodes = nil
}

// better orders the places of one pod that several nodes say they have: one that is alive
// before one that is dead, as when a pod was made again elsewhere; then by name, so that
// all give the same answer.
func better(a, b Place) bool {
	if a.Alive != b.Alive {
		return a.Alive
	}
	return cmp.Or(cmp.Compare(a.Node, b.Node), model.ComparePods(a.Pod, b.Pod)) < 0
}

// PodNamed finds a pod by its namespace and name. Who says that it has the pod is its node
// alone: nobody else has signed it.
func (s Snapshot) PodNamed(namespace, name string) (Place, bool) {
	if s.Index != nil {
		s.Index.once.Do(s.Index.build)
		p, ok := s.Index.byName[podName{namespace, name}]
		return p, ok
	}
	return s.scan(func(p *model.PodID) bool { return p.Namespace == namespace && p.Name == name })
}

// PodByUID finds a pod by its UID, likewise.
func (s Snapshot) PodByUID(uid string) (Place, bool) {
	if s.Index != nil {
		s.Index.once.Do(s.Index.build)
		p, ok := s.Index.byUID[uid]
		return p, ok
	}
	return s.scan(func(p *model.PodID) bool { return p.UID == uid })
}

func (s Snapshot) scan(is func(*model.PodID) bool) (best Place, found bool) {
	for id, n := range s.Nodes {
		for i := range n.State.Pods {
			if p := &n.State.Pods[i]; is(p) {
				here := Place{Pod: *p, Node: id, Alive: n.Alive}
				if !found || better(here, best) {
					best, found = here, true
				}
			}
		}
	}
	return best, found
}
