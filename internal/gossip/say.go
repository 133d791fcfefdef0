package gossip

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/drover-project/drover/internal/deadband"
	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/spread"
)

const (
	// repeatLoad is how often a load is said that has not changed: with two of three lost
	// it is still heard within 30 s, placement's default StaleAfter. Among many members, where
	// repeating costs the most, it is up to longestRepeat: then one that does not arrive makes
	// its node stale for a while to who has missed it.
	// Published once a second, a load that comes repeatSlack early is not put off for another
	// second.
	repeatLoad    = 9 * time.Second
	repeatSpacing = 14 * time.Millisecond // a member
	longestRepeat = 25 * time.Second
	repeatSlack   = time.Second / 4
	// A change that is not grave waits until its record has not been said for a while, so that
	// what swings without end costs all members together no more than so much: the space
	// grows with their number, between these.
	shortestSpace = 500 * time.Millisecond
	loadSpacing   = 2 * time.Millisecond // a member
	longestSpace  = 4*time.Second - repeatSlack
	partSpacing   = 50 * time.Millisecond // a member
	longestPart   = time.Minute
)

// words are what this node has said last of each thing, and when.
type words struct {
	since        uint64 // the version of the first
	registration *model.NodeState
	load         saidLoad
	loadVersion  uint64
	loadAt       time.Time // zero: never
	suffering    []model.Contention
	sufferingAt  time.Time // zero: never
	routes       *partition[waysTo]
	pods         *partition[podName]
	talk         *partition[talking]

	sufferingOwed bool
}

func newWords(since uint64) *words {
	w := &words{since: since, loadVersion: since,
		routes: newPartition(kindRoutes, otherWays),
		pods:   newPartition(kindPods, func(a, b podName) bool { return a != b }),
		talk:   newPartition(kindTalk, otherTalk),
	}
	w.talk.weight = weightOf
	return w
}

// unsay has all that was said said again.
func (w *words) unsay() {
	w.registration, w.loadAt = nil, time.Time{}
	w.sufferingOwed = !w.sufferingAt.IsZero()
	w.routes.split(w.routes.parts)
	w.pods.split(w.pods.parts)
	w.talk.split(w.talk.parts)
}

// nextVersion grows with the clock, so that it also grows over a restart.
func (g *Gossip) nextVersion() uint64 {
	g.last = max(g.last+1, uint64(g.cfg.Now().UnixNano()))
	return g.last
}

// reckon begins anew when the clock was ahead by more than others take: they have refused all that
// was said by it, and would all that is greater.
func (g *Gossip) reckon() {
	if g.last > uint64(g.cfg.Now().Add(maxAhead).UnixNano()) {
		g.last, g.said = 0, nil
	}
}

// take puts an own record into the store and has it spread.
func (g *Gossip) take(raw []byte) error {
	now := g.cfg.Now()
	at, version, got := g.store.ingest(raw, now)
	if got != accepted && got != duplicate {
		return fmt.Errorf("own record refused: %s", got)
	}
	if got == accepted {
		g.tell(at, version, raw)
	}
	g.touch(g.cfg.Self.Node)
	// What is not said again soon is said twice.
	twice := at.kind == kindCertificate || at.kind == kindRegistration || at.kind == kindLocation
	g.post(g.spread.Say(now, spread.Slot(at.id()), version, raw, twice))
	return nil
}

// certify puts the own certificate into the store when it is new. All that was said under
// another key is said anew then: once that certificate is over, nobody new believes it.
func (g *Gossip) certify(id *identity.Identity) error {
	if g.certified == id {
		return nil
	}
	raw, err := seal(id, kindCertificate, certificateVersion(id.Cert), id.Cert.Raw)
	if err != nil {
		return err
	}
	if err := g.take(raw); err != nil {
		return fmt.Errorf("own certificate: %w", err)
	}
	g.certified = id
	if g.said != nil {
		g.said.unsay()
	}
	return nil
}

// say says what of a state differs from what was said last by more than its dead band. A
// load that was just measured is repeated from time to time all the same.
func (g *Gossip) say(id *identity.Identity, s *model.NodeState, measured bool) error {
	if err := g.certify(id); err != nil {
		return err
	}
	if g.said == nil {
		g.said = newWords(g.nextVersion())
	}
	g.owed = false
	now := g.cfg.Now()
	if err := g.register(id, s); err != nil {
		return err
	}
	if err := g.saySuffering(id, s.Suffering, now); err != nil {
		return err
	}
	space := g.space(partSpacing, longestPart)
	waits, err := sayParts(g, id, g.said.routes, waysOf(s), now, space)
	if err != nil {
		return err
	}
	g.owed = g.owed || waits
	pods := make(map[string]podName, len(s.Pods))
	for _, p := range s.Pods {
		pods[p.UID] = podName{p.Namespace, p.Name}
	}
	if waits, err = sayParts(g, id, g.said.pods, pods, now, g.space(loadSpacing, longestSpace)); err != nil {
		return err
	}
	g.owed = g.owed || waits
	if err := g.sayLoad(id, saidLoad{s.Load, s.Bandwidth}, now, measured); err != nil {
		return err
	}
	// Talk has names in it that tenants choose: whatever they are, the rest is said.
	if waits, err = sayParts(g, id, g.said.talk, talkingOf(s), now, g.space(loadSpacing, longestSpace)); err != nil {
		g.cfg.Log.Warn("could not say who talks to whom", "ends", len(s.Ends), "edges", len(s.Edges), "error", err)
	}
	g.owed = g.owed || waits
	return nil
}

// passed is the time from then to now; a clock that has gone back counts as a long time.
func passed(then, now time.Time) time.Duration {
	if d := now.Sub(then); d >= 0 {
		return d
	}
	return math.MaxInt64
}

// space is how long a record is not said again, unless it is grave.
func (g *Gossip) space(perMember, longest time.Duration) time.Duration {
	return scaled(len(g.members), perMember, shortestSpace, longest)
}

// scaled grows with the number of members.
func scaled(members int, perMember, shortest, longest time.Duration) time.Duration {
	return min(max(perMember*time.Duration(members), shortest), longest)
}

// Spaces are how long a load is not said again among so many members although it has changed,
// and after which time it is although it has not.
func Spaces(members int) (changed, repeated time.Duration) {
	return scaled(members, loadSpacing, shortestSpace, longestSpace), scaled(members, repeatSpacing, repeatLoad, longestRepeat) - repeatSlack
}

func (g *Gossip) sayJSON(id *identity.Identity, k kind, version uint64, v any) error {
	body, err := g.store.codec.encode(v)
	if err != nil {
		return err
	}
	raw, err := seal(id, k, version, body)
	if err != nil {
		return err
	}
	return g.take(raw)
}

// register says the registration at once when anything in it has changed: it does so
// rarely, and it is what keeps pods away from a node that cannot take them.
func (g *Gossip) register(id *identity.Identity, s *model.NodeState) error {
	next := registered(*s)
	if g.said.registration != nil && reflect.DeepEqual(*g.said.registration, next) {
		return nil
	}
	body := registrationBody{next, g.said.since}
	body.Version = g.nextVersion()
	if err := g.sayJSON(id, kindRegistration, body.Version, body); err != nil {
		return err
	}
	g.said.registration = &next
	return nil
}

func (g *Gossip) saySuffering(id *identity.Identity, list []model.Contention, now time.Time) error {
	if len(list) > maxSuffering { // the worst count
		list = slices.SortedStableFunc(slices.Values(list), func(a, b model.Contention) int { return cmp.Compare(b.Wait, a.Wait) })[:maxSuffering]
	}
	differs, grave := deadband.Suffering(g.said.suffering, list)
	grave = grave || g.said.sufferingOwed
	if !differs && !grave {
		return nil
	}
	if !grave && passed(g.said.sufferingAt, now) < g.space(loadSpacing, longestSpace) {
		g.owed = true
		return nil
	}
	if err := g.sayJSON(id, kindSuffering, g.nextVersion(), list); err != nil {
		return err
	}
	g.said.suffering, g.said.sufferingAt, g.said.sufferingOwed = list, now, false
	return nil
}

func (g *Gossip) sayLoad(id *identity.Identity, l saidLoad, now time.Time, measured bool) error {
	w := g.said
	quiet := passed(w.loadAt, now)
	changed, repeated := Spaces(len(g.members))
	switch {
	case w.loadAt.IsZero(), measured && quiet >= repeated:
	case !deadband.Load(w.load.load, l.load) && !deadband.Bandwidth(w.load.bandwidth, l.bandwidth):
		return nil
	case quiet < changed:
		g.owed = true
		return nil
	}
	// The version is when it was measured, so that the record need not say that as well.
	units := w.loadVersion/uint64(loadUnit) + 1
	if at := l.load.At; !at.IsZero() && !at.After(now) {
		units = max(units, uint64(max(0, floorUnits(at))))
	}
	version := units * uint64(loadUnit)
	raw, err := sealLoad(id, version, l)
	if err != nil {
		return err
	}
	if err := g.take(raw); err != nil {
		return err
	}
	w.load, w.loadVersion, w.loadAt = l, version, now
	return nil
}

// sayOwed says what was put off, when its time has come.
func (g *Gossip) sayOwed() {
	if !g.owed || g.returned {
		return
	}
	id, err := g.identity()
	if err == nil {
		err = g.say(id, g.state, false)
	}
	if err != nil {
		g.cfg.Log.Warn("could not say what was put off", "error", err)
	}
}

// outdo is called when a record of this node itself came from others that was newer than what
// it has said: from before a restart, with a clock that has gone back since. All is said
// again, with versions that beat it, and nothing from before counts.
func (g *Gossip) outdo() {
	id, err := g.identity()
	if err != nil || g.state == nil {
		return
	}
	s := *g.state
	g.said, s.Version = nil, g.nextVersion()
	if err := g.say(id, &s, true); err != nil {
		g.cfg.Log.Warn("could not repeat own state", "error", err)
		return
	}
	g.state = &s
}
