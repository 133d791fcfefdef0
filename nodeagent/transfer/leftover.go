package transfer

import (
	"context"
	"os"
	"slices"
	"strings"
)

// Leftovers names all directories of images, also of those that are being received just now: a
// sender may go on with them for ever.
func (s *Store) Leftovers() ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), partialSuffix)
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// Forget removes images that Leftovers has named, by that name, as Discard does. Call it only
// for a move whose record was gone, or finished, after they were named: nobody can come again with
// them.
func (s *Store) Forget(ctx context.Context, name string) error { return s.discard(ctx, name) }
