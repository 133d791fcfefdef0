package model

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
)

// Workload is what pods come and go of: the owner that makes them, or a pod without one.
type Workload struct {
	Namespace string
	// Kind is that of the owner, or Pod.
	Kind string
	Name string
}

// String gives namespace/kind/name.
func (w Workload) String() string { return w.Namespace + "/" + w.Kind + "/" + w.Name }

// MarshalText implements encoding.TextMarshaler, in the form of String.
func (w Workload) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It takes nothing but the names that Kubernetes
// gives to objects.
func (w *Workload) UnmarshalText(b []byte) error {
	parts := strings.Split(string(b), "/")
	if len(parts) != 3 {
		return fmt.Errorf("workload %.100q: want namespace/kind/name", b)
	}
	got := Workload{parts[0], parts[1], parts[2]}
	if !got.Valid() {
		return fmt.Errorf("workload %.100q: a part of it is no name", b)
	}
	*w = got
	return nil
}

// Valid tells whether all parts may be names.
func (w Workload) Valid() bool { return isName(w.Namespace) && isName(w.Kind) && isName(w.Name) }

// isName tells what may be the name of an object or a kind.
func isName(s string) bool {
	const most = 253
	odd := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.')
	}
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, odd)
}

// CompareWorkloads orders by namespace, kind and name.
func CompareWorkloads(a, b Workload) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name))
}

// Edge is what a workload's pods on one node have carried to and from another workload's pods,
// wherever those are: internal/edges says how much what is long ago counts.
type Edge struct {
	Local  Workload `json:"local"`
	Remote Workload `json:"remote"`
	Volume Bytes    `json:"volume"`
}

// End is a pod of the node that talks, by its workload and addresses.
type End struct {
	Workload  Workload     `json:"workload"`
	Addresses []netip.Addr `json:"addresses"`
}
