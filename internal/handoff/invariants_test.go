package handoff

import "slices"

// inspect looks at the invariants that hold at every moment, and lets time pass in what runs.
func (w *world) inspect() {
	w.ticks()
	var running [3]int
	for _, n := range w.nodes {
		for _, p := range n.procs {
			if p.runs() {
				running[p.name]++
				w.inspectRunning(p)
			}
		}
	}
	if most := slices.Max(running[:]); most > 1 {
		w.fail("%d copies run at once", most)
	}
	for _, m := range w.moves {
		d := w.api.recs[m.id].Decision
		if m.decision != Undecided && d != m.decision {
			w.fail("two outcomes of %s: %s, then %s", m.id, m.decision, d)
		}
		m.decision = d
	}
}

// ticks lets everything that runs with the moved memory count on. Whoever hears the ticks must
// never hear one twice: that would be the memory of an older state, run once more.
func (w *world) ticks() {
	for _, n := range w.nodes {
		for _, p := range n.procs {
			if !p.memory || !p.runs() {
				continue
			}
			if p.tick++; p.tick <= w.heard[p.name] {
				w.fail("tick %d of %s was sent before: an older state runs", p.tick, p.uid)
			}
			w.heard[p.name] = p.tick
		}
	}
}

func (w *world) inspectRunning(p *proc) {
	for _, m := range w.moves {
		r := w.api.recs[m.id]
		switch p.uid {
		case m.to:
			if r.Decision != Committed {
				w.fail("the copy runs, and the move is not committed")
			}
			m.copyRan = true
		case m.from:
			if r.Decision == Committed && !r.Returned {
				w.fail("the source runs, and the move is committed")
			}
			if m.copyRan {
				w.fail("the source runs again after the copy ran")
			}
		}
	}
}

// inspectWrite looks at what was just written, on the state that it was based on.
func (w *world) inspectWrite(m *move, c Change, version string) {
	r, src, dst := w.api.recs[m.id], w.nodes[m.src], w.nodes[m.dst]
	switch c.Verb {
	case Offer:
		if src.fences[m.from] != r.Epoch {
			w.fail("offered without a fence")
		}
		if !dst.images[m.id] {
			w.fail("offered before the target had the images")
		}
		for _, p := range src.all(m.from) {
			if !p.frozen {
				w.fail("offered while the source is not frozen")
			}
		}
	case Commit:
		if restored := len(dst.all(m.to)); dst.boot == m.committer && restored < w.size && !w.crashed {
			w.fail("committed with %d of %d copies", restored, w.size)
		}
		if m.confirmed != version && !c.blind {
			w.fail("committed without having read pods and owner again")
		}
		w.own(r.Epoch, m.to)
	case Return:
		if !r.Target.Failed && !dst.lost && dst.boot == m.committer {
			w.fail("taken back from a target that goes on")
		}
		w.own(r.Epoch, m.from)
	case Fail:
		if len(dst.all(m.to)) > 0 {
			w.fail("failed while a copy lives")
		}
		if dst.fences[m.to] == 0 {
			w.fail("failed without a fence")
		}
	case Load:
		if dst.lacking(m.to) {
			w.fail("said to be loaded while a copy lacks memory")
		}
	case Forfeit:
		if src.intact(m) {
			w.fail("given up for lost while the source has it")
		}
	case Release:
		if src.fences[m.from] > 0 {
			w.fail("released with the fence in place")
		}
		for _, p := range src.all(m.from) {
			if p.frozen {
				w.fail("released while the source is frozen")
			}
		}
	}
}

// own notes who has an epoch; nobody else may ever get it.
func (w *world) own(epoch int64, uid string) {
	if who, ok := w.owners[epoch]; ok {
		w.fail("epoch %d belonged to %s and is given to %s", epoch, who, uid)
	}
	w.owners[epoch] = uid
}

// inspectEnd looks at what must be true once the faults have stopped and all is quiet.
func (w *world) inspectEnd() {
	m := w.last()
	r := w.api.recs[m.id]
	if !m.settled {
		w.fail("stuck: %+v", *r)
		return
	}
	if r.Lost {
		if !w.nodes[m.dst].lost {
			w.fail("given up for lost, and the target's node is there")
		}
		if len(w.nodes[m.src].all(m.from)) > 0 {
			w.fail("the move was lost, and the source is left behind")
		}
		return
	}
	uid := m.owner(r)
	p := w.api.pods[uid]
	n := w.nodes[p.node]
	cold := slices.ContainsFunc(n.all(uid), func(q *proc) bool { return !q.memory })
	switch {
	case n.lost || w.nodes[m.src].lost && r.Target.Failed:
		return
	case p.deleted && !p.deletedByUser && !w.userEnded(m):
		w.fail("nobody but Drover deleted pod %s, the owner", uid)
	case p.deleted:
		return
	case !n.whole(uid):
		w.fail("not every container runs of pod %s, the owner", uid)
	case n.lacking(uid):
		w.fail("a copy waits for ever for memory that nobody has")
	case cold && !w.crashed:
		w.fail("the memory was lost without a crash")
	}
}

// userEnded: the user deleted one end of a move, and the other was deleted for that.
func (w *world) userEnded(m *move) bool {
	return w.api.pods[m.from].deletedByUser || w.api.pods[m.to].deletedByUser
}
