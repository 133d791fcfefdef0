package httpserver

import (
	"testing"
	"time"
)

// Anybody who reaches the port can hold connections: each of them ends by itself, also one whose
// caller never sends the body that it has announced.
func TestConnectionsEnd(t *testing.T) {
	s := bounded("", nil)
	for what, d := range map[string]time.Duration{"read": s.ReadTimeout, "read headers": s.ReadHeaderTimeout, "write": s.WriteTimeout, "idle": s.IdleTimeout} {
		if d <= 0 {
			t.Errorf("no limit of the time to %s", what)
		}
	}
}
