// Package lease looks after the old addresses of pods that take their connections along: it finds
// the two sandboxes, makes the tunnel's ends in them when package migrate asks for that, and when
// the move is over looks after the lease that it has become, until its end. What is in a sandbox
// is package address's.
//
// A note on tmpfs tells of every sandbox of this node in which something was made, so that an agent
// that comes back finds it.
package lease

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/nodeagent/address"
	"github.com/drover-project/drover/nodeagent/migrate"
)

var _ migrate.Addresses = (*Ends)(nil)

// Ends are the ends of tunnels in the sandboxes of this node. Safe for concurrent use.
type Ends struct {
	layout layout.Layout
	// host is how the agent reaches the node's files ("/proc/1/root").
	host string
	log  *slog.Logger

	mu sync.Mutex
	// kept is what came for an address while it was held, by the PodMigration's UID.
	kept map[string]*address.Kept
}

// room is how much of what comes while an address is held is kept, in bytes.
const room = 8 << 20

// New gives the ends of the node whose files are at host. It does no I/O.
func New(l layout.Layout, host string, log *slog.Logger) *Ends {
	return &Ends{layout: l, host: host, log: log, kept: map[string]*address.Kept{}}
}

// of is the lease of a move.
func of(m migrate.Move) address.Lease { return address.Lease{Old: m.Keep.Old, New: m.Keep.New} }

// nonce ties the answers to probes to the move.
func nonce(m migrate.Move) address.Nonce {
	sum := sha256.Sum256([]byte(m.UID + "/" + strconv.FormatInt(m.Epoch, 10)))
	return address.Nonce(sum[:16])
}

// Find implements migrate.Addresses.
func (e *Ends) Find(m migrate.Move) (netip.Addr, error) {
	if len(m.Keep.Old) == 0 {
		return netip.Addr{}, fmt.Errorf("the record of move %s/%s tells no old address", m.Namespace, m.Name)
	}
	_, at, err := e.sandboxOf(m, migrate.RoleTarget)
	if err != nil {
		return netip.Addr{}, err
	}
	all, err := address.Addresses(at)
	if err != nil {
		return netip.Addr{}, err
	}
	i := slices.IndexFunc(all, func(a netip.Addr) bool { return a.Is4() == m.Keep.Old[0].Is4() && !slices.Contains(m.Keep.Old, a) })
	if i < 0 {
		return netip.Addr{}, fmt.Errorf("the sandbox of pod %s has the addresses %v: none of the family of %v", m.Target.Name, all, m.Keep.Old[0])
	}
	return all[i], nil
}

// Answer implements migrate.Addresses.
func (e *Ends) Answer(ctx context.Context, m migrate.Move) error {
	if err := address.Able(); err != nil {
		return err
	}
	_, at, err := e.sandboxOf(m, migrate.RoleSource)
	if err != nil {
		return err
	}
	if err := e.free(at, m); err != nil {
		return err
	}
	return address.Answer(ctx, at, of(m), nonce(m))
}

// free tells that the pod that leaves uses no old address of an earlier move any more: the sandbox
// can be an end of one tunnel.
func (e *Ends) free(at string, m migrate.Move) error {
	l, err := address.LeaseOf(at)
	switch {
	case errors.Is(err, address.ErrNoEnd):
		return nil
	case err == nil && l.String() != of(m).String():
		return fmt.Errorf("pod %s still has connections by %v, its address before an earlier move", m.Source.Name, l.Old)
	}
	return err
}

// Probe implements migrate.Addresses.
func (e *Ends) Probe(ctx context.Context, m migrate.Move) error {
	_, at, err := e.sandboxOf(m, migrate.RoleTarget)
	if err != nil {
		return err
	}
	return address.Probe(ctx, at, of(m), nonce(m))
}

// Hold implements migrate.Addresses. What comes meanwhile is kept, if the agent may.
func (e *Ends) Hold(m migrate.Move) error {
	n, at, err := e.sandboxOf(m, migrate.RoleSource)
	if err != nil {
		return err
	}
	if err := e.free(at, m); err != nil {
		return err
	}
	if err := e.begin(n); err != nil {
		return err
	}
	if err := address.Hold(at, of(m)); err != nil {
		return err
	}
	kept, err := address.Keep(at, of(m), room)
	if err != nil {
		e.log.Warn("what comes for an address while it is held is lost, and sent again by who sent it", "addresses", m.Keep.Old, "err", err)
		return nil
	}
	e.mu.Lock()
	before := e.kept[m.UID]
	e.kept[m.UID] = kept
	e.mu.Unlock()
	if before != nil {
		return before.Close()
	}
	return nil
}

// take gives what was kept, once.
func (e *Ends) take(uid string) *address.Kept {
	e.mu.Lock()
	defer e.mu.Unlock()
	kept := e.kept[uid]
	delete(e.kept, uid)
	return kept
}

// Arrive implements migrate.Addresses.
func (e *Ends) Arrive(m migrate.Move) error {
	n, at, err := e.sandboxOf(m, migrate.RoleTarget)
	if err != nil {
		return err
	}
	if err := e.begin(n); err != nil {
		return err
	}
	return address.Arrive(at, of(m))
}

// Open implements migrate.Addresses.
func (e *Ends) Open(m migrate.Move) error {
	_, at, err := e.noted(m.UID, migrate.RoleTarget)
	if err != nil {
		return err
	}
	return address.Open(at, of(m), m.Keep.For)
}

// Forward implements migrate.Addresses.
func (e *Ends) Forward(m migrate.Move) error {
	_, at, err := e.noted(m.UID, migrate.RoleSource)
	if err != nil {
		return err
	}
	return address.Forward(at, of(m), e.take(m.UID), m.Keep.For)
}

// Clear implements migrate.Addresses.
func (e *Ends) Clear(m migrate.Move, role migrate.Role) error {
	return e.clear(m.UID, role)
}

func (e *Ends) clear(uid string, role migrate.Role) error {
	if role == migrate.RoleSource {
		if kept := e.take(uid); kept != nil {
			if err := kept.Close(); err != nil {
				e.log.Warn("what was kept for an address is dropped", "err", err)
			}
		}
	}
	_, at, err := e.noted(uid, role)
	if errors.Is(err, errGone) {
		return e.forget(uid, role)
	}
	if err != nil {
		return err
	}
	if err := address.Clear(at); err != nil {
		return err
	}
	return e.forget(uid, role)
}
