package gossip

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Keys are those of the gossip: all of them are taken in, the first is sent with.
type Keys [][]byte

// maxKeys bounds how many are tried on each packet.
const maxKeys = 4

// ParseKeys reads a list of keys, one in a line, each of 16, 24 or 32 bytes in base64. Its
// errors tell nothing of a key.
func ParseKeys(text []byte) (Keys, error) {
	var keys Keys
	for _, line := range strings.Fields(string(text)) {
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil {
			return nil, fmt.Errorf("key %d is not base64", len(keys)+1)
		}
		keys = append(keys, key)
	}
	return keys, keys.validate()
}

func (ks Keys) validate() error {
	if len(ks) == 0 || len(ks) > maxKeys {
		return fmt.Errorf("%d gossip keys, want 1 to %d", len(ks), maxKeys)
	}
	for i, key := range ks {
		if n := len(key); n != 16 && n != 24 && n != 32 {
			return fmt.Errorf("gossip key %d has %d bytes, want 16, 24 or 32", i+1, n)
		}
		if among(ks[:i], key) {
			return fmt.Errorf("gossip key %d is there twice", i+1)
		}
	}
	return nil
}

func among(keys Keys, key []byte) bool {
	return slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
}

// Text is what ParseKeys reads.
func (ks Keys) Text() []byte {
	var b bytes.Buffer
	for _, key := range ks {
		b.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	}
	return b.Bytes()
}

// KeyName names a key without telling it: the first four bytes of the SHA-256 of a random key.
func KeyName(key []byte) string {
	sum := sha256.Sum256(append([]byte("drover gossip key name\x00"), key...))
	return hex.EncodeToString(sum[:4])
}

// LoadKeys reads the file with the keys.
func LoadKeys(path string) (Keys, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the gossip keys: %w", err)
	}
	keys, err := ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("the gossip keys in %s: %w", path, err)
	}
	return keys, nil
}

// SetKeys takes other keys into use, while it runs, too: new ones are added, the first becomes
// the one to send with, and only then those are dropped that are no longer among them.
func (g *Gossip) SetKeys(keys Keys) error {
	if err := keys.validate(); err != nil {
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
		if !among(keys, key) {
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
	keys, err := LoadKeys(g.cfg.KeyFile)
	if err != nil {
		return err
	}
	has := g.ring.GetKeys()
	missing := slices.ContainsFunc(keys, func(key []byte) bool { return !among(has, key) })
	if len(has) == len(keys) && !missing && bytes.Equal(has[0], keys[0]) {
		return nil
	}
	if err := g.SetKeys(keys); err != nil {
		return err
	}
	g.cfg.Log.Info("gossip keys", "sent with", KeyName(keys[0]), "taken in", slices.Collect(keyNames(keys)))
	return nil
}

func keyNames(keys Keys) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, key := range keys {
			if !yield(KeyName(key)) {
				return
			}
		}
	}
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
