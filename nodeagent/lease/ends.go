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
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/nodeagent/address"
	"github.com/drover-project/drover/nodeagent/migrate"
)

var _ migrate.Addresses = (*Ends)(nil)

// Ends are the ends of tunnels in the sandboxes of this node. Safe for concurrent use.
type Ends struct {
	layout layout.Layout
	// host is how the agent reaches the node's files ("/proc/1/root").
	host    string
	records migrate.Records
	log     *slog.Logger

	// sends: what was kept is sent once, and nothing newer before it.
	sends sync.Mutex
	mu    sync.Mutex
	// kept is what came for an address while it was held, by the PodMigration's UID.
	kept map[string]*address.Kept
	// partings are of pods that are about to be frozen, likewise.
	partings map[string]*address.Parting
}

// room is how much of what comes while an address is held is kept, in bytes.
const room = 8 << 20

// accepts is for how long a pod gets to accept the connections that wait for that, before it is frozen.
const accepts = 50 * time.Millisecond

// soon is for how long a pod may wait, frozen, for word of its earlier addresses.
const soon = time.Second

// New gives the ends of the node whose files are at host; records are those of the API server itself. It does
// no I/O.
func New(l layout.Layout, host string, records migrate.Records, log *slog.Logger) *Ends {
	return &Ends{layout: l, host: host, records: records, log: log, kept: map[string]*address.Kept{}, partings: map[string]*address.Parting{}}
}

// of is the lease of a move.
func of(m migrate.Move) address.Lease {
	return address.Lease{Old: m.Keep.Old, New: m.Keep.New, Network: network(m.Epoch)}
}

// network is that of a move's own address, and before those of the earlier ones: no other move of its pod has
// it that a sandbox can have to do with.
func network(epoch int64) uint32 { return uint32(epoch*address.Most) & (1<<24 - 1) }

// leases are that of a move's own address, and those of the earlier ones that go along.
func leases(m migrate.Move) []address.Lease {
	all := []address.Lease{of(m)}
	for i, e := range m.Keep.Earlier {
		all = append(all, address.Lease{Old: e.Old, New: m.Keep.New, Network: network(m.Epoch) + uint32(i) + 1})
	}
	return all
}

// nonce ties the answers to probes to the move, and to a network that both ends know.
func nonce(m migrate.Move, l address.Lease) address.Nonce {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d/%06x", m.UID, m.Epoch, l.Network))
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
	i := slices.IndexFunc(all, func(a netip.Addr) bool {
		return a.Is4() == m.Keep.Old[0].Is4() && !slices.ContainsFunc(leases(m), func(l address.Lease) bool { return slices.Contains(l.Old, a) })
	})
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
	return address.Answer(ctx, at, of(m), nonce(m, of(m)))
}

// free tells that the pod that leaves uses no old address of an earlier move but those that go along: what
// comes for another would be lost.
func (e *Ends) free(at string, m migrate.Move) error {
	all, err := address.Arrived(at)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(l address.Lease) bool {
		return slices.ContainsFunc(m.Keep.Earlier, func(e migrate.Earlier) bool { return slices.Equal(e.Old, l.Old) })
	})
	left, err := address.Left(at)
	switch {
	case errors.Is(err, address.ErrNoEnd):
		err = nil
	case err == nil && left.String() != of(m).String():
		all = append(all, left)
	}
	if err == nil && len(all) > 0 {
		return fmt.Errorf("pod %s still has connections by %v, its address before an earlier move", m.Source.Name, all[0].Old)
	}
	return err
}

// Probe implements migrate.Addresses.
func (e *Ends) Probe(ctx context.Context, m migrate.Move) error {
	_, at, err := e.sandboxOf(m, migrate.RoleTarget)
	if err != nil {
		return err
	}
	for i, l := range leases(m) {
		s := seat{m: m, i: i}
		if e.over(ctx, s) {
			continue
		}
		if err := address.Probe(ctx, at, l, nonce(m, l)); err != nil && !e.over(ctx, s) {
			return err
		}
	}
	return nil
}

// over tells that the lease of an earlier address has ended since the move was accepted: who held it need not
// answer any more, and the other addresses go along without it.
func (e *Ends) over(ctx context.Context, s seat) bool {
	if s.i == 0 {
		return false
	}
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), soon)
	defer done()
	lives, err := e.lives(ctx, s)
	return err == nil && !lives
}

// Part implements migrate.Addresses. What comes from now on is kept, if the agent may.
func (e *Ends) Part(m migrate.Move) error {
	at, err := e.leaving(m)
	if err != nil {
		return err
	}
	p, err := address.Part(at, of(m))
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.partings[m.UID] = p
	e.mu.Unlock()
	if err := e.keep(m.UID, at, of(m)); err != nil {
		return err
	}
	if err := address.Accepted(at, accepts); err != nil {
		e.log.Warn("connections that the pod has not accepted yet are lost, and made again by who made them", "addresses", m.Keep.Old, "err", err)
	}
	return nil
}

// Hold implements migrate.Addresses.
func (e *Ends) Hold(m migrate.Move) error {
	if p := e.parting(m.UID); p != nil {
		return p.Hold()
	}
	at, err := e.leaving(m)
	if err != nil {
		return err
	}
	if err := address.Hold(at, of(m)); err != nil {
		return err
	}
	return e.keep(m.UID, at, of(m))
}

// leaving finds the sandbox that the pod is to leave, and notes it.
func (e *Ends) leaving(m migrate.Move) (string, error) {
	n, at, err := e.sandboxOf(m, migrate.RoleSource)
	if err != nil {
		return "", err
	}
	if err := e.free(at, m); err != nil {
		return "", err
	}
	return at, e.begin(n)
}

// parting gives it, once; nil: there is none.
func (e *Ends) parting(uid string) *address.Parting { return taken(e, e.partings, uid) }

// keep begins to keep what comes for an address that the PodMigration of that UID has left.
func (e *Ends) keep(uid, at string, l address.Lease) error {
	kept, err := address.Keep(at, l, room)
	if err != nil {
		e.log.Warn("what comes for an address while it is held is lost, and sent again by who sent it", "addresses", l.Old, "err", err)
		return nil
	}
	return e.put(uid, kept)
}

// put takes the place of what was kept before.
func (e *Ends) put(uid string, kept *address.Kept) error {
	e.mu.Lock()
	before := e.kept[uid]
	e.kept[uid] = kept
	e.mu.Unlock()
	if before != nil {
		return before.Close()
	}
	return nil
}

// turn has what comes for an address sent on to where the pod is now, what was kept first.
func (e *Ends) turn(uid, at string, l address.Lease, d time.Duration) error {
	return e.sending(uid, func(kept *address.Kept) error { return address.Turn(at, l, kept, d) })
}

// sending gives what was kept to send, and keeps it for the next time if that fails.
func (e *Ends) sending(uid string, send func(*address.Kept) error) error {
	e.sends.Lock()
	defer e.sends.Unlock()
	kept := e.take(uid)
	err := send(kept)
	if err != nil && kept != nil {
		err = errors.Join(err, e.put(uid, kept))
	}
	return err
}

// drop forgets what was kept, if anything was.
func (e *Ends) drop(uid string) {
	if kept := e.take(uid); kept != nil {
		if err := kept.Close(); err != nil {
			e.log.Warn("what was kept for an address is dropped", "err", err)
		}
	}
}

// take gives what was kept, once.
func (e *Ends) take(uid string) *address.Kept { return taken(e, e.kept, uid) }

// taken takes out of one of the maps of e what is of the PodMigration of that UID.
func taken[T any](e *Ends, from map[string]T, uid string) T {
	e.mu.Lock()
	defer e.mu.Unlock()
	one := from[uid]
	delete(from, uid)
	return one
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
	return address.Arrive(at, leases(m)...)
}

// Open implements migrate.Addresses.
func (e *Ends) Open(ctx context.Context, m migrate.Move) error {
	_, at, err := e.noted(m.UID, migrate.RoleTarget)
	if err != nil {
		return err
	}
	err = address.Open(at, of(m), m.Keep.For)
	ctx, done := context.WithTimeout(ctx, soon)
	defer done()
	for i, x := range m.Keep.Earlier {
		err = errors.Join(err, e.openEarlier(ctx, at, seat{m: m, i: i + 1}, x.For))
	}
	return err
}

// openEarlier opens an earlier address if its lease lives. Where that cannot be found out now it stays held,
// and the Watch tries it later.
func (e *Ends) openEarlier(ctx context.Context, at string, s seat, d time.Duration) error {
	lives, err := e.lives(ctx, s)
	if err != nil {
		e.log.Warn("an earlier address of the pod stays held, for it is not known whether it is still its own", "addresses", s.lease().Old, "err", err)
		return nil
	}
	if !lives {
		return nil
	}
	return address.Open(at, s.lease(), d)
}

// lives tells, by what the API server has now, that the record by which the pod has left an earlier address
// still leases it. What is heard of a record that is gone is too late: its holder goes with it.
func (e *Ends) lives(ctx context.Context, s seat) (bool, error) {
	x := s.m.Keep.Earlier[s.i-1]
	pm, err := e.records.Get(ctx, s.m.Namespace, x.Migration)
	if err != nil {
		return false, client.IgnoreNotFound(err)
	}
	return string(pm.UID) == x.UID && leased(pm), nil
}

// Forward implements migrate.Addresses.
func (e *Ends) Forward(m migrate.Move) error {
	_, at, err := e.noted(m.UID, migrate.RoleSource)
	if err != nil {
		return err
	}
	return e.sending(m.UID, func(kept *address.Kept) error { return address.Forward(at, of(m), kept, m.Keep.For) })
}

// Clear implements migrate.Addresses.
func (e *Ends) Clear(m migrate.Move, role migrate.Role) error {
	return e.clear(m.UID, role)
}

func (e *Ends) clear(uid string, role migrate.Role) error {
	_, at, err := e.noted(uid, role)
	if errors.Is(err, errGone) {
		return e.forget(uid, role)
	}
	if err != nil {
		return err
	}
	clear := address.ClearNew
	if role == migrate.RoleSource {
		clear = address.ClearLeft
	}
	if err := clear(at); err != nil {
		return err
	}
	return e.forget(uid, role)
}
