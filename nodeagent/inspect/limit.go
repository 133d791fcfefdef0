package inspect

import (
	"fmt"
	"slices"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/rlimit"
	"golang.org/x/sys/unix"
)

// limitNames are a task's limits in the order in which CRIU writes them (getrlimit(2)).
var limitNames = strings.Fields(`RLIMIT_CPU RLIMIT_FSIZE RLIMIT_DATA RLIMIT_STACK RLIMIT_CORE RLIMIT_RSS RLIMIT_NPROC RLIMIT_NOFILE
	RLIMIT_MEMLOCK RLIMIT_AS RLIMIT_LOCKS RLIMIT_SIGPENDING RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_RTPRIO RLIMIT_RTTIME`)

// hard gives the bundle's hard limit. One that it does not name is its node's runtime's,
// which nodes have different ones of.
func (b *bundle) hard(name string) (uint64, bool) {
	for _, l := range b.Process.Rlimits {
		if l.Type == name {
			return l.Hard, true
		}
	}
	return 0, false
}

// limits checks what a task may use of its node.
func (b *bundle) limits(t *criu_core.TaskCoreEntry) error {
	if t == nil || b.all.has(unix.CAP_SYS_RESOURCE) {
		return nil
	}
	if err := b.rlimits(t.GetRlimits().GetRlimits()); err != nil {
		return err
	}
	if b.Process.OOMScoreAdj == nil {
		return nil
	}
	least := leastOOMScoreAdj(*b.Process.OOMScoreAdj)
	if t.OomScoreAdj == nil {
		return refuse(tampered, fmt.Sprintf("%d and more", least), "it has no oom_score_adj, so it would have CRIU's")
	}
	if t.GetOomScoreAdj() < least {
		return refuse(differs, fmt.Sprintf("%d and more", least), "its oom_score_adj is %d", t.GetOomScoreAdj())
	}
	return nil
}

func (b *bundle) rlimits(all []*rlimit.RlimitEntry) error {
	for _, l := range b.Process.Rlimits {
		if slices.Index(limitNames, l.Type) >= len(all) {
			return refuse(tampered, fmt.Sprint(l.Hard), "it has no %s, so it would have CRIU's", l.Type)
		}
	}
	for i, l := range all {
		if i >= len(limitNames) {
			return refuse(tampered, fmt.Sprint(len(limitNames)), "it has %d limits", len(all))
		}
		if most, ok := b.hard(limitNames[i]); ok && max(l.GetMax(), l.GetCur()) > most {
			return refuse(differs, fmt.Sprint(most), "its %s is %d, and at most %d", limitNames[i], l.GetCur(), l.GetMax())
		}
	}
	return nil
}

// leastOOMScoreAdj: kubelet gives a burstable pod 3 to 999, the less the more of its node's
// memory it asks for: that of a pod from a smaller node is lower, and honest.
func leastOOMScoreAdj(want int32) int32 {
	if want >= 3 && want <= 999 {
		return 3
	}
	return want
}

// scheduling policies (sched(7)) that take the processor from all others.
const (
	schedFIFO     = 1
	schedRR       = 2
	schedDeadline = 6
)

// schedule checks how a thread is scheduled.
func (b *bundle) schedule(t *criu_core.ThreadCoreEntry) error {
	if b.all.has(unix.CAP_SYS_NICE) {
		return nil
	}
	switch p := t.GetSchedPolicy(); p {
	case schedFIFO, schedRR, schedDeadline:
		if _, ok := b.hard("RLIMIT_RTPRIO"); !ok && b.Process.Scheduler == nil {
			return refuse(tampered, "no real-time policy, since the container has not SYS_NICE", "its scheduling policy is %d, priority %d", p, t.GetSchedPrio())
		}
	}
	if _, ok := b.hard("RLIMIT_NICE"); !ok && b.Process.Scheduler == nil && t.GetSchedNice() < 0 {
		return refuse(differs, "0 and more, since the container has not SYS_NICE", "its nice value is %d", t.GetSchedNice())
	}
	return nil
}
