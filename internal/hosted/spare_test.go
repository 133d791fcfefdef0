package hosted

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestSpareThatDoesNothing: a process that ends with its command in hand, or hangs with it until the
// caller's time is up, has started nothing, and that is told.
func TestSpareThatDoesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		does string
		late bool
	}{
		"it ends":  {does: "read order <&4"},
		"it hangs": {does: "exec sleep 600", late: true},
	} {
		t.Run(name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "program")
			if err := os.WriteFile(program, []byte("#!/bin/sh\n"+c.does+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			s, err := Prepare(program, "/")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.late {
				cancel()
			}
			if err := s.Start(ctx, Command{Dir: t.TempDir(), Args: []string{"true"}}); !errors.Is(err, ErrGone) {
				t.Errorf("got %v, want %v", err, ErrGone)
			}
		})
	}
}
