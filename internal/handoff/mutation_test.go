package handoff

import "testing"

// TestMutants breaks one rule at a time and wants the simulation to notice. A rule whose
// breach goes unseen is either no rule or not tested.
func TestMutants(t *testing.T) {
	mutants := []struct {
		name string
		opt  options
	}{
		{"writes without compare-and-swap", options{mutant: mutant{noCAS: true}}},
		{"source resumes on a timeout", options{mutant: mutant{thawOnTimeout: true}}},
		{"source takes a lost answer to its abort for a yes", options{mutant: mutant{lostAbortIsYes: true}}},
		{"target resumes before the commit", options{mutant: mutant{resumeUndecided: true}}},
		{"source ends before the acknowledgement", options{mutant: mutant{endEarly: true}}},
		{"source ends before its owner has the replacement", options{mutant: mutant{endUnadopted: true}}},
		{"source writes no fence", options{mutant: mutant{noFence: true}}},
		{"source offers before the target has the images", options{mutant: mutant{offerEarly: true}}},
		{"target commits without reading again", options{mutant: mutant{noConfirm: true}}},
		{"target commits in another boot than it waited in", options{mutant: mutant{noBootCheck: true}, reboots: true}},
		{"target waits before its Node object shows its boot", options{mutant: mutant{noNodeCheck: true}, reboots: true}},
		{"target commits and resumes with the first copy alone", options{mutant: mutant{commitPart: true}}},
		{"target minds no passed copy that is not held any more", options{mutant: mutant{passThawed: true}}},
		{"target takes a copy that somebody has thawed for one that never ran", options{mutant: mutant{thawedFails: true}}},
		{"target waits with an abort for a pass that hangs", options{mutant: mutant{abortWaits: true}}},
		{"target says resumed before all copies are thawed", options{mutant: mutant{resumePart: true}}},
		{"a copy whose create returns is thawed", options{passThaws: true}},
		{"a create after the move ends the other containers", options{freshAll: true}},
		{"target resumes a copy whose create has gone", options{mutant: mutant{orphanResume: true}}},
		{"target forgets that its copy ran", options{mutant: mutant{forgetRun: true}}},
		{"target says failed before its copy is dead", options{mutant: mutant{failAlive: true}}},
		{"target says failed without a fence", options{mutant: mutant{noTargetFence: true}}},
		{"target starts anew before the acknowledgement", options{mutant: mutant{freshEarly: true}}},
		{"source takes the pod back without proof", options{mutant: mutant{returnEarly: true}}},
		{"target says nothing before its copy runs", options{mutant: mutant{noStarting: true}}},
		{"source takes the pod back after the start", options{mutant: mutant{returnStarted: true}}},
		{"target that was booted after the start says that its copy never ran", options{mutant: mutant{resumeUnstarted: true}}},
		{"a return keeps the epoch", options{mutant: mutant{sameEpoch: true}}},
		{"a move leaves no epoch for its return", options{epochStep: 1}},
		{"source keeps its fence after an abort", options{mutant: mutant{keepFence: true}}},
		{"source stays frozen after an abort", options{mutant: mutant{keepFrozen: true}}},
		{"the agent ends the copy for a create that is gone", options{mutant: mutant{ownStranger: true}, blindFresh: true}},
		{"the agent keeps the mark of a copy that it ended unrun", options{keepMark: true}},
		{"drover-runc ignores the fence", options{ignoreFence: true}},
		{"source ends while a copy lacks its memory", options{postCopy: true, mutant: mutant{endUnloaded: true}}},
		{"source says nothing when its memory is lost", options{postCopy: true, mutant: mutant{noForfeit: true}}},
		{"controller hands over while a copy lacks memory", options{postCopy: true, mutant: mutant{handUnloaded: true}}},
		{"target says loaded while a copy lacks memory", options{postCopy: true, mutant: mutant{loadEarly: true}}},
		{"target keeps copies whose memory is lost", options{postCopy: true, mutant: mutant{noDrop: true}}},
		{"source takes a pod back whose copy has begun to run without all memory", options{postCopy: true, mutant: mutant{returnStarted: true}}},
		{"the hook does not freeze", options{noFreeze: true}},
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			for s := int64(1); s <= 200_000; s++ {
				if broken, _ := simulate(s, m.opt, nil); broken != "" {
					t.Logf("seed %d: %s", s, broken)
					return
				}
			}
			t.Error("200000 runs did not notice")
		})
	}
}
