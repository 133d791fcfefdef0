package transfer

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Leftovers names the directories of images that nobody receives just now.
func (s *Store) Leftovers() ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), partialSuffix)
		if len(s.calls[name]) == 0 && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// Forget removes images that Leftovers has named, by that name. Call it only for a move
// whose record is gone, or finished on this node: nobody can come again with them.
func (s *Store) Forget(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.calls[name]) > 0 {
		return fmt.Errorf("forget images %s: they are being received", name)
	}
	if err := s.remove(name); err != nil {
		return fmt.Errorf("forget images %s: %w", name, err)
	}
	return nil
}
