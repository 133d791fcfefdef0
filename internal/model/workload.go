package model

import (
	"net/netip"
	"strings"
)

// Workload is what pods come and go of, as namespace/kind/name: the owner that makes them, or, as kind
// Pod, a pod without one. Empty: none.
type Workload string

// WorkloadOf names one.
func WorkloadOf(namespace, kind, name string) Workload {
	return Workload(namespace + "/" + kind + "/" + name)
}

// Valid tells whether it is made of names that Kubernetes gives to objects.
func (w Workload) Valid() bool {
	parts := strings.Split(string(w), "/")
	return len(parts) == 3 && isName(parts[0]) && isName(parts[1]) && isName(parts[2])
}

// isName tells what may be the name of an object or a kind.
func isName(s string) bool {
	const most = 253
	odd := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.')
	}
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, odd)
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
