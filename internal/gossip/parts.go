package gossip

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/drover-project/drover/internal/model"
)

// What a node says of many things, its routes, its pods and its talk, is split into parts that fit
// into a packet, each thing into the part that the hash of its name tells: a change
// of one thing is one packet. A part says all of the things that are its own, those that it
// leaves out are gone.

const (
	maxParts = 256
	// maxItems bounds what one part may unpack to.
	maxItems = 1024
)

// partOf is the part of a thing, of so many.
func partOf(name string, parts int) int {
	sum := sha256.Sum256([]byte(name))
	return int(binary.BigEndian.Uint32(sum[:]) % uint32(parts))
}

// partBody is one part.
type partBody[V any] struct {
	Part  int          `json:"part"`
	Parts int          `json:"parts"`
	Items map[string]V `json:"items"`
}

func (b *partBody[V]) wellFormed() bool {
	if b.Parts < 1 || b.Parts > maxParts || b.Part < 0 || b.Part >= b.Parts || len(b.Items) > maxItems {
		return false
	}
	for name := range b.Items {
		if name == "" || len(name) > maxName || partOf(name, b.Parts) != b.Part {
			return false
		}
	}
	return true
}

// part is one that was verified.
type part[V any] struct {
	kept
	partBody[V]
}

// after tells whether p says more than q of what both cover.
func (p *part[V]) after(q *part[V]) bool {
	return p.version > q.version || p.version == q.version && p.Parts > q.Parts
}

// together is what parts say together. When a node splits anew, parts of both splits are
// held for a while: of each thing counts what the newest part says that covers it.
func together[V any](parts map[int]*part[V]) map[string]V {
	all := map[string]V{}
	for _, p := range parts {
		for name, v := range p.Items {
			if !outdated(parts, p, name) {
				all[name] = v
			}
		}
	}
	return all
}

func outdated[V any](parts map[int]*part[V], p *part[V], name string) bool {
	for i, q := range parts {
		if q.Parts != p.Parts && q.after(p) && partOf(name, q.Parts) == i {
			return true
		}
	}
	return false
}

// waysTo are the route times to one node.
type waysTo struct {
	Node *way `json:"n,omitempty"`
	Pod  *way `json:"p,omitempty"`
}

// way is a route time as it travels: not when it was measured, but how long before it was told.
type way struct {
	RTT     time.Duration `json:"t"`
	Spread  time.Duration `json:"s"`
	Samples int           `json:"n"`
	Stamp   model.Stamp   `json:"by"`
	Behind  time.Duration `json:"b,omitempty"`
}

// podName goes by the pod's UID.
type podName struct {
	Namespace string `json:"s"`
	Name      string `json:"n"`
}
