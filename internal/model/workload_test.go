package model

import (
	"strings"
	"testing"
)

// Whatever a node says is shown to people.
func TestOnlyNamesMakeAWorkload(t *testing.T) {
	for _, w := range []Workload{WorkloadOf("shop", "Deployment", "web"), WorkloadOf("ns", "Pod", "a.b-c.9"), WorkloadOf("a", "b", strings.Repeat("x", 253))} {
		if !w.Valid() {
			t.Errorf("%q is not valid", w)
		}
	}
	for _, w := range []Workload{"", "a/b", "a/b/c/d", "//", "a//c", "/b/c", "a/b/", "a/b/c\x1b[2J", "a/b/c d", "a/b/ü", "a/b/c\n", WorkloadOf("a", "b", strings.Repeat("x", 254))} {
		if w.Valid() {
			t.Errorf("%q is valid", w)
		}
	}
}
