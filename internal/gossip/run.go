package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"
)

const (
	retransmitMult = 4
	leaveTimeout   = 3 * time.Second
	// joinSpace is how often the seeds are asked whether all of them are members;
	// lonelySpace the same while nobody was found yet.
	joinSpace   = 30 * time.Second
	lonelySpace = time.Second
	// exchangeSpacing is, for each member, how often the lists of members are compared with one
	// of them: among many that costs 250 bytes a second. It is joinSpace at least, and
	// unknownSpace as long as no other member has answered.
	exchangeSpacing = time.Second
	unknownSpace    = 5 * time.Second
	// tick is how often what is due is looked after while something is under way, calmTick else:
	// an agent at rest is not to be woken for nothing.
	tick     = 50 * time.Millisecond
	calmTick = 500 * time.Millisecond
)

// Run takes part until ctx ends, then leaves, telling the others so. It returns an error
// when it cannot listen; that others cannot be reached is logged and tried again.
func (g *Gossip) Run(ctx context.Context) error {
	if err := g.readKeys(); err != nil {
		return err
	}
	ml, err := memberlist.Create(g.memberlistConfig())
	if err != nil {
		return fmt.Errorf("listen for gossip on %s:%d: %w", g.cfg.BindAddr, g.cfg.BindPort, err)
	}
	var group errgroup.Group
	group.Go(func() error { g.join(ctx, ml); return nil })
	look := make(chan struct{})
	group.Go(func() error { g.keep(ctx, look); return nil })
	group.Go(func() error { g.keepIndex(ctx, look); return nil })
	group.Go(func() error { g.followKeys(ctx); return nil })
	group.Go(func() error { g.carry(ctx, ml); return nil })
	<-ctx.Done()
	_ = group.Wait() // none of them fails
	var errs []error
	if err := ml.Leave(leaveTimeout); err != nil {
		errs = append(errs, fmt.Errorf("tell the others about leaving: %w", err))
	}
	if err := ml.Shutdown(); err != nil {
		errs = append(errs, fmt.Errorf("shut gossip down: %w", err))
	}
	return errors.Join(errs...)
}

func (g *Gossip) memberlistConfig() *memberlist.Config {
	c := memberlist.DefaultLANConfig() // Lifeguard's local health and suspicion are on
	c.Name = g.cfg.Self.CommonName()
	c.Transport = g.cfg.Transport
	c.BindAddr, c.AdvertiseAddr = g.cfg.BindAddr, g.cfg.BindAddr
	c.BindPort, c.AdvertisePort = g.cfg.BindPort, g.cfg.BindPort
	c.Keyring = g.ring
	c.Delegate, c.Events = delegate{g}, delegate{g}
	c.RetransmitMult = retransmitMult
	c.PushPullInterval = 0 // join does it, less often the more members there are
	// A node that comes back with another address may take its name again.
	c.DeadNodeReclaimTime = 5 * time.Second
	c.EnableCompression = false // bodies are compressed already
	c.Logger = log.New(logWriter{g.cfg.Log, &strangers{g: g}}, "", 0)
	return c
}

// keepIndex puts together who talks to whom when it is told to look, beside all else: it takes a while.
func (g *Gossip) keepIndex(ctx context.Context, look <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-look:
			g.index()
		}
	}
}

// keep does the small regular things.
func (g *Gossip) keep(ctx context.Context, look chan<- struct{}) {
	timer := time.NewTimer(tick)
	defer timer.Stop()
	var swept time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.stirred:
			timer.Reset(tick)
			continue
		case <-timer.C:
		}
		timer.Reset(calmTick)
		now := g.cfg.Now()
		g.mu.Lock()
		g.calm = true
		g.outdoOwed()
		g.sayOwed()
		g.settle(now)
		g.post(g.spread.Tick(now))
		if now.Sub(swept) >= time.Minute {
			swept = now
			g.sweep(now)
		}
		g.unlock()
		select {
		case look <- struct{}{}:
		default: // keepIndex is still at it
		}
	}
}

func (g *Gossip) sweep(now time.Time) {
	g.store.sweep(now, g.present)
	for name, m := range g.members {
		if !m.Alive && now.Sub(m.Since) > deadRetention {
			delete(g.members, name)
		}
	}
	g.anew = true
}

// join looks for the seeds that are no members, for as long as ctx runs: it is also what
// brings the halves of a cluster together that was cut in two.
func (g *Gossip) join(ctx context.Context, ml *memberlist.Memberlist) {
	tick := time.NewTicker(lonelySpace)
	defer tick.Stop()
	var asked, exchanged time.Time
	told := ""
	for {
		// All others may have left at once, as in an upgrade: who is alone asks at once.
		if g.size() == 1 || time.Since(asked) >= joinSpace {
			told = g.joinMissing(ctx, ml, told)
			asked = time.Now()
		}
		// Who gets no answer is perhaps not known to those that it knows.
		if since := time.Since(exchanged); g.newcomer() && since >= unknownSpace || since >= max(joinSpace, exchangeSpacing*time.Duration(g.size())) {
			g.exchange(ml)
			exchanged = time.Now()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (g *Gossip) newcomer() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.spread.Newcomer()
}

// exchange compares who is a member with another one: that is gossiped, but gossip may be lost.
func (g *Gossip) exchange(ml *memberlist.Memberlist) {
	var others []string
	for _, m := range g.Members() {
		if m.Alive && m.Name != g.cfg.Self.CommonName() {
			others = append(others, m.Address)
		}
	}
	if len(others) == 0 {
		return
	}
	with := others[rand.IntN(len(others))]
	if _, err := ml.Join([]string{with}); err != nil {
		g.cfg.Log.Debug("members not compared, will be tried with another", "with", with, "error", err)
	}
}

// seedsAtOnce bounds a round of joining: each address that does not answer costs seconds,
// and one that does brings the addresses of all others with it.
const seedsAtOnce = 3

// joinMissing tries some of the missing seeds. Trouble that was told last is not told again.
func (g *Gossip) joinMissing(ctx context.Context, ml *memberlist.Memberlist, told string) string {
	missing := g.missing(ctx)
	if len(missing) == 0 {
		return ""
	}
	rand.Shuffle(len(missing), func(i, j int) { missing[i], missing[j] = missing[j], missing[i] })
	some := missing[:min(len(missing), seedsAtOnce)]
	slices.Sort(some)
	n, err := ml.Join(some)
	if err == nil {
		g.cfg.Log.Info("joined", "reached", n, "of", len(some))
		return ""
	}
	if why := strings.Join(some, " "); why != told {
		g.cfg.Log.Warn("seeds not reached, will be tried again", "seeds", some, "error", err)
		return why
	}
	return told
}

// missing are the seeds that are not the address of a living member.
func (g *Gossip) missing(ctx context.Context) []string {
	if g.cfg.Seeds == nil {
		return nil
	}
	seeds, err := g.cfg.Seeds(ctx)
	if err != nil {
		if ctx.Err() == nil {
			g.cfg.Log.Warn("no seeds to join", "error", err)
		}
		return nil
	}
	known := map[string]bool{}
	for _, m := range g.Members() {
		known[m.Address] = m.Alive
	}
	var out []string
	for _, s := range seeds {
		if _, _, err := net.SplitHostPort(s); err != nil {
			s = net.JoinHostPort(s, strconv.Itoa(DefaultPort))
		}
		if !known[s] {
			out = append(out, s)
		}
	}
	return out
}

func sortedMembers(ms map[string]Member) []Member {
	return slices.SortedFunc(maps.Values(ms), func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
}

// logWriter turns memberlist's lines ("[WARN] memberlist: text") into structured ones.
type logWriter struct {
	log       *slog.Logger
	strangers *strangers
}

var levels = map[string]slog.Level{
	"[DEBUG] ": slog.LevelDebug,
	"[INFO] ":  slog.LevelDebug,
	"[WARN] ":  slog.LevelWarn,
	"[ERR] ":   slog.LevelError,
	"[ERROR] ": slog.LevelError,
}

func (w logWriter) Write(b []byte) (int, error) {
	line := string(bytes.TrimSpace(b))
	if undecryptable(line) && !w.strangers.heard() {
		return len(b), nil
	}
	level := slog.LevelInfo
	for prefix, l := range levels {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			line, level = rest, l
			break
		}
	}
	w.log.Log(context.Background(), level, strings.TrimPrefix(line, "memberlist: "))
	return len(b), nil
}
