package lease

import (
	"fmt"
	"time"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/nodeagent/address"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// seat is a lease where the pod has come to by a move: of the address that it had before that, or of an
// earlier one that has gone along.
type seat struct {
	pm *v1alpha1.PodMigration
	m  migrate.Move
	i  int // of leases(m)
}

func (s seat) lease() address.Lease { return leases(s.m)[s.i] }

// key is the seat's own, whatever becomes of its lease.
func (s seat) key() string { return fmt.Sprintf("%s/%d", s.m.UID, s.i) }

// uid is that of the PodMigration whose source holds the address.
func (s seat) uid() string {
	if s.i == 0 {
		return s.m.UID
	}
	return s.m.Keep.Earlier[s.i-1].UID
}

// span is for how long after this move the address is kept at most.
func (s seat) span() time.Duration {
	if s.i == 0 {
		return s.m.Keep.For
	}
	return s.m.Keep.Earlier[s.i-1].For
}

// left is for how long from now on the address is kept yet: no longer than its time, whenever that began.
func (s seat) left(now time.Time) time.Duration {
	k := s.m.Keep
	if k.Until.IsZero() {
		return s.span()
	}
	return max(0, min(s.span(), k.Until.Add(s.span()-k.For).Sub(now)))
}

// quiet is for how long nothing may have used the address before its lease is left.
func (s seat) quiet() time.Duration {
	if len(s.m.Keep.Earlier) > 0 && s.pm.Status.HandedOver {
		return brief // its owner has the pod: whoever is new comes by the newest address
	}
	return quiet
}

// serves tells that the address is that of a source which is kept: what comes for it is new each time, and its
// Services have nobody else.
func (s seat) serves() bool {
	is := &s.pm.Status
	return s.i == 0 && v1alpha1.SourceKept(is) && !is.Source.Ended && !is.Adopted
}

// earlier is what the record says of an earlier address; nil: it is not one.
func (s seat) earlier(c *v1alpha1.ConnectionsStatus) *v1alpha1.EarlierLease {
	if s.i == 0 || s.i > len(c.Earlier) {
		return nil
	}
	return &c.Earlier[s.i-1]
}

// ended tells that this record says that the lease is over.
func (s seat) ended(c *v1alpha1.ConnectionsStatus) bool {
	if e := s.earlier(c); e != nil {
		return e.Ended
	}
	return c.LeaseEnded
}

// say puts into the record that the lease is over, and why if that is known here.
func (s seat) say(c *v1alpha1.ConnectionsStatus, why end) {
	message := v1alpha1.Cut(why.message)
	if e := s.earlier(c); e != nil {
		if e.Ended, e.TargetLeft = true, e.TargetLeft || why.left; why.reason != "" {
			e.EndReason, e.EndMessage = why.reason, message
		}
		return
	}
	if c.LeaseEnded, c.TargetLeft = true, c.TargetLeft || why.left; why.reason != "" {
		c.LeaseReason, c.LeaseMessage = why.reason, message
	}
}

// picture is what the records say together.
type picture struct {
	recorded map[string]*v1alpha1.PodMigration
	// newest is by which move the pod has come to where it has an address now, by the UID of the one by which
	// it has left that.
	newest map[string]*v1alpha1.PodMigration
}

func pictureOf(all []v1alpha1.PodMigration) picture {
	p := picture{map[string]*v1alpha1.PodMigration{}, map[string]*v1alpha1.PodMigration{}}
	for i := range all {
		pm := &all[i]
		p.recorded[string(pm.UID)] = pm
		if !arrived(pm) {
			continue
		}
		m := migrate.MoveOf(pm)
		for i := range leases(m) {
			uid := seat{pm, m, i}.uid()
			if before := p.newest[uid]; before == nil || before.Status.Epoch < pm.Status.Epoch {
				p.newest[uid] = pm
			}
		}
	}
	return p
}

// over tells that the lease has ended, and that the target has said that it has left.
func (p picture) over(s seat) (ended, left bool) {
	c := s.pm.Status.Connections
	e := s.earlier(c)
	if e == nil {
		return c.LeaseEnded, c.TargetLeft
	}
	// It may be ended where it was made, which the holder's agent and drover-controller write. That record is
	// the older one: if it is not there it is gone, and the holder with it.
	holder := p.recorded[s.uid()]
	return e.Ended || holder == nil || !leased(holder), e.TargetLeft
}
