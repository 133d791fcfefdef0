// Package health is what a container shows of its own ill health: restarts, how it last ended, a
// probe that fails, lines in its log. It tells that something is wrong, and not whose fault that is:
// no grade is made of it, and it moves nothing by itself (docs/contention.md).
package health

import (
	"fmt"
	"strings"
	"time"
)

// Signs are those of one container. The zero value is one that shows nothing.
type Signs struct {
	Restarts int `json:"restarts"`
	// LastExit is how it last ended; nil: it never did, or nobody remembers.
	LastExit *Exit `json:"lastExit,omitempty"`
	// Waiting is why it does not run now ("CrashLoopBackOff"); empty: it runs, or it has ended.
	Waiting string `json:"waiting,omitempty"`
	// Probe is one that fails; nil: none does.
	Probe *Probe `json:"failingProbe,omitempty"`
	// Log is of lines that match the pattern that its owner asked for; nil: nobody asked.
	Log *Log `json:"log,omitempty"`
}

// Exit is the end of a container.
type Exit struct {
	Code   int    `json:"code"`
	Signal int    `json:"signal,omitempty"` // as the runtime tells it; mostly 0, and Code is 128 and the signal
	Reason string `json:"reason"`           // "OOMKilled", "Error", "Completed"
	// At has whole seconds.
	At time.Time `json:"at"`
}

// String is short: "137 OOMKilled".
func (e Exit) String() string {
	s := fmt.Sprint(e.Code)
	if e.Signal != 0 {
		s += fmt.Sprintf(" (signal %d)", e.Signal)
	}
	if e.Reason != "" {
		s += " " + e.Reason
	}
	return s
}

// Kind of a probe.
type Kind string

// The kinds of probes whose failure a pod's status tells. A liveness probe's is an Exit.
const (
	Readiness Kind = "readiness"
	Startup   Kind = "startup"
)

// Probe is one that has not succeeded, since then or earlier.
type Probe struct {
	Kind  Kind      `json:"kind"`
	Since time.Time `json:"since"` // whole seconds
}

// Log is what was found in a container's log.
type Log struct {
	// Matches is how many lines have matched since the agent follows it, PerMinute how many of
	// them in the last minute.
	Matches   uint64 `json:"matches"`
	PerMinute int    `json:"perMinute"`
	// Last is when one was last read; zero: never.
	Last time.Time `json:"last,omitzero"`
	// Skipped are bytes that were not looked at, because more was written than may be read.
	Skipped uint64 `json:"skippedBytes"`
	// Problem is why nothing is read; empty: it is.
	Problem string `json:"problem,omitempty"`
}

// Any tells whether there is anything to tell.
func (s Signs) Any() bool {
	return s.Restarts > 0 || s.LastExit != nil || s.Waiting != "" || s.Probe != nil || s.Log != nil
}

// Since says what it has begun to show at start or later; empty: nothing. An end without error is no
// sign of ill health. What a pod's status tells has whole seconds, so start counts from its own.
func (s Signs) Since(start time.Time) string {
	second := start.Truncate(time.Second)
	var all []string
	if e := s.LastExit; e != nil && (e.Code != 0 || e.Signal != 0) && !e.At.Before(second) {
		all = append(all, fmt.Sprintf("it ended with %s", *e))
	}
	if p := s.Probe; p != nil && !p.Since.Before(second) {
		all = append(all, fmt.Sprintf("its %s probe fails", p.Kind))
	}
	if l := s.Log; l != nil && !l.Last.IsZero() && !l.Last.Before(start) {
		all = append(all, fmt.Sprintf("%d lines of its log a minute match its pattern", l.PerMinute))
	}
	return strings.Join(all, ", ")
}
