package gossip

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/drover-project/drover/internal/keyring"
)

// SetKeys takes other keys into use, while it runs, too: new ones are added, the first becomes
// the one to send with, and only then those are dropped that are no longer among them.
func (g *Gossip) SetKeys(keys keyring.Keys) error {
	if err := keys.Validate(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for _, key := range keys {
		errs = append(errs, g.ring.AddKey(key))
	}
	errs = append(errs, g.ring.UseKey(keys[0]))
	// From the end: to take out the last moves none of those that packets are tried on meanwhile.
	for _, key := range slices.Backward(slices.Clone(g.ring.GetKeys())) {
		if !keys.Has(key) {
			errs = append(errs, g.ring.RemoveKey(key))
		}
	}
	return errors.Join(errs...)
}

// keyInterval is how often the file with the keys is read. kubelet writes a changed Secret with
// up to two minutes' delay.
const keyInterval = 5 * time.Second

// followKeys takes the keys of the file into use whenever it has changed, until ctx ends. A file
// that is unreadable or wrong changes nothing.
func (g *Gossip) followKeys(ctx context.Context) {
	if g.cfg.KeyFile == "" {
		return
	}
	tick := time.NewTicker(keyInterval)
	defer tick.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		trouble := ""
		if err := g.readKeys(); err != nil {
			trouble = err.Error()
		}
		if trouble != "" && trouble != told {
			g.cfg.Log.Error("the gossip keys stay as they are", "error", trouble)
		}
		told = trouble
	}
}

// readKeys takes the keys of the file into use that are not yet.
func (g *Gossip) readKeys() error {
	if g.cfg.KeyFile == "" {
		return nil
	}
	keys, err := keyring.Load(g.cfg.KeyFile)
	if err != nil {
		return err
	}
	has := keyring.Keys(g.ring.GetKeys())
	missing := slices.ContainsFunc(keys, func(key []byte) bool { return !has.Has(key) })
	if len(has) == len(keys) && !missing && bytes.Equal(has[0], keys[0]) {
		return nil
	}
	if err := g.SetKeys(keys); err != nil {
		return err
	}
	g.cfg.Log.Info("gossip keys", "sent with", keyring.Name(keys[0]), "taken in", keys.Names())
	return nil
}

// undecryptable tells by memberlist's line that something came that no key has encrypted: it
// tells it in no other way.
func undecryptable(line string) bool {
	return strings.Contains(line, "Decrypt packet failed") ||
		strings.Contains(line, "no installed keys could decrypt") ||
		strings.Contains(line, "remote state is not encrypted")
}

// strangers keeps lines about what cannot be decrypted from filling the log.
type strangers struct {
	g    *Gossip
	told time.Time
}

const strangersSpace = time.Minute

// heard counts such a line, and tells whether it is to be logged.
func (s *strangers) heard() bool {
	s.g.metrics.undecryptable.Inc()
	now := s.g.cfg.Now()
	if now.Sub(s.told) < strangersSpace {
		return false
	}
	s.told = now
	return true
}
