// Package criu knows what CRIU says: its log, its version and what that means for a node.
package criu

import (
	"os"
	"strings"
)

// hints are what a user can do about errors of CRIU that are met often.
var hints = []struct{ sign, hint string }{
	{"Unsupported proto 262", "a socket uses MPTCP, which CRIU cannot dump; Go programs need GODEBUG=multipathtcp=0"},
	{"Can't get rlimit", "CRIU needs CAP_SYS_RESOURCE to dump processes that are not root's"},
	{"Connected TCP socket", "a TCP connection is open and was not to be closed"},
	{"Can't lookup mount", "a file is open that lies outside of the container's file systems"},
}

// Errors picks what went wrong out of a log of CRIU: its last few errors, and a hint where
// the cause is a known one. It is empty when the log holds none or cannot be read.
func Errors(path string) string {
	const keep = 4
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	var found []string
	for _, line := range strings.Split(string(data), "\n") {
		// This one is told on every node without CAP_SYS_RESOURCE and harms nothing.
		if strings.Contains(line, "Error (") && !strings.Contains(line, "RLIMIT_NOFILE") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	all := strings.Join(found, "\n")
	found = found[max(0, len(found)-keep):]
	for _, h := range hints {
		if strings.Contains(all, h.sign) {
			found = append(found, h.hint)
		}
	}
	return strings.Join(found, "; ")
}
