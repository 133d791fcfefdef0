package contention

import "time"

// forgotten marks a Runs that is the number of a CPU (contention.bpf.c).
const forgotten = 1 << 63

// grown is what has come to each since before; what is less now began anew.
func grown[K comparable](now, before map[K]uint64) map[K]uint64 {
	more := make(map[K]uint64)
	for p, ns := range now {
		if was := before[p]; ns > was {
			more[p] = ns - was
		} else if ns < was {
			more[p] = ns
		}
	}
	return more
}

// runs is what each group has run since before, by CPU and group.
func runs(now, before map[uint64][]uint64) map[uint64]map[uint64]uint64 {
	more := make(map[uint64]map[uint64]uint64)
	for group, perCPU := range now {
		for cpu, ns := range perCPU {
			if was := before[group]; was != nil && was[cpu] <= ns {
				ns -= was[cpu]
			}
			if ns == 0 {
				continue
			}
			if more[uint64(cpu)] == nil {
				more[uint64(cpu)] = make(map[uint64]uint64)
			}
			more[uint64(cpu)][group] = ns
		}
	}
	return more
}

// settle gives who owes whom, and shares out the waits of which a CPU has forgotten whom they
// were for: by what the groups have run there. A CPU of which nobody is known to have run
// owes nothing.
func settle(owed map[contentionPair]uint64, runs map[uint64]map[uint64]uint64) map[Pair]time.Duration {
	settled := make(map[Pair]time.Duration)
	for p, ns := range owed {
		if p.Runs < forgotten {
			settled[Pair{p.Waits, p.Runs}] += time.Duration(ns)
			continue
		}
		var all float64
		there := runs[p.Runs-forgotten]
		for _, ran := range there {
			all += float64(ran)
		}
		for group, ran := range there {
			settled[Pair{p.Waits, group}] += time.Duration(float64(ns) * float64(ran) / all)
		}
	}
	return settled
}
