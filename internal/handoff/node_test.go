package handoff

import (
	"fmt"
	"slices"
	"time"
)

func (n *node) bootID() string { return fmt.Sprintf("boot-%d-%d", n.id, n.boot) }

// all gives the living containers of a pod.
func (n *node) all(uid string) (found []*proc) {
	for _, p := range n.procs {
		if p.uid == uid && !p.dead {
			found = append(found, p)
		}
	}
	return found
}

// moving gives the living containers that a move takes from the node.
func (n *node) moving(m *move) (found []*proc) {
	for _, id := range m.containers {
		if p := n.byID(id); p != nil {
			found = append(found, p)
		}
	}
	return found
}

// whole: every container of the pod runs.
func (n *node) whole(uid string) bool {
	running := map[int]bool{}
	for _, p := range n.all(uid) {
		running[p.name] = running[p.name] || p.runs()
	}
	for name := range n.w.size {
		if !running[name] {
			return false
		}
	}
	return true
}

func (n *node) byID(id string) *proc {
	for _, p := range n.procs {
		if p.id == id && !p.dead {
			return p
		}
	}
	return nil
}

func (n *node) waiter(id string) *waiter {
	for _, x := range n.waiters {
		if x.id == id {
			return x
		}
	}
	return nil
}

// know is the agent hearing of a record: it makes the machines it does not have yet.
func (n *node) know(r Record) {
	if r.Source.Node == fmt.Sprint(n.id) {
		if s := n.agent.sources[r.ID]; s != nil {
			n.feedSource(r.ID, Event{Kind: Seen, Record: r})
		} else {
			n.adopt(r.ID)
		}
	}
	if r.Target.Node == fmt.Sprint(n.id) {
		if t := n.agent.targets[r.ID]; t != nil {
			n.feedTarget(r.ID, Event{Kind: Seen, Record: r})
		} else {
			n.adopt(r.ID)
		}
	}
}

// adopt reads the record itself, then looks at the node, then makes the machine.
func (n *node) adopt(id string) {
	w := n.w
	n.call("adopt read", func() Event { return Event{Kind: Read, Outcome: OK, Record: *w.api.recs[id]} }, func(e Event) {
		if e.Outcome != OK {
			return // the next watch, or actor, tries again
		}
		life := n.agent.life
		w.later("adopt", func() {
			if n.agent.up && n.agent.life == life {
				n.build(e.Record)
			}
		})
	}, Event{Kind: Read, Outcome: Unknown})
}

func (n *node) build(r Record) {
	w, m := n.w, n.w.move(r.ID)
	if m.src == n.id && n.agent.sources[r.ID] == nil {
		f := SourceFacts{Fence: n.fences[m.from] > 0 && n.fences[m.from] <= r.Epoch}
		living := n.moving(m)
		f.Alive, f.Short, f.Frozen = len(living) > 0, len(living) < w.size, len(living) > 0
		for _, p := range living {
			f.Frozen, f.Dumping = f.Frozen && p.frozen, f.Dumping || p.criu == "dumping"
		}
		n.agent.sources[r.ID] = newSource(DefaultConfig(), r, f, w.opt.mutant)
		w.logf("node %d: source of %s built from %+v", n.id, r.ID, f)
		n.feedSource(r.ID, Event{Kind: Seen, Record: r})
	}
	if m.dst == n.id && n.agent.targets[r.ID] == nil {
		f := n.targetFacts(m)
		n.agent.targets[r.ID] = newTarget(DefaultConfig(), r, f, w.opt.mutant)
		w.logf("node %d: target of %s built from %+v", n.id, r.ID, f)
		n.feedTarget(r.ID, Event{Kind: Seen, Record: r})
	}
}

func (n *node) targetFacts(m *move) TargetFacts {
	f := TargetFacts{BootID: n.bootID(), Images: n.images[m.id], Begun: n.begun[m.to], Fence: n.fences[m.to] > 0 && n.fences[m.to] <= n.w.api.recs[m.id].Epoch}
	for _, p := range n.procs {
		switch {
		case p.uid != m.to:
		case p.passed: // also one that died: its note is there
			f.Passed = append(f.Passed, Copy{ID: p.id, Name: fmt.Sprint(p.name), Alive: !p.dead, Frozen: p.frozen})
		case !p.dead:
			f.Copy, f.Alive, f.Frozen, f.Held, f.Restoring = p.id, p.criu != "restoring", p.frozen, p.criu == "held", p.criu == "restoring"
		}
	}
	for _, x := range n.waiters {
		switch name := fmt.Sprint(x.name); {
		case x.uid != m.to || f.passed(x.id, "") >= 0:
		case f.passed("", name) < 0 && (f.Copy == "" || f.Copy == x.id):
			f.Waiter, f.Name, f.Deadline = x.id, name, x.deadline
		default:
			f.Stranger = x.id
		}
	}
	return f
}

// clock is the node's own: no two machines agree about the time.
func (n *node) clock() time.Time { return n.w.now.Add(n.ahead) }

func (n *node) feedSource(id string, e Event) {
	s := n.agent.sources[id]
	if s == nil {
		return
	}
	acts := s.Step(n.clock(), e)
	n.w.logf("node %d source %s %s %s%s -> %s", n.id, id, e.Kind, e.Op, e.Outcome, ops(acts))
	for _, a := range acts {
		n.sourceDo(id, a)
	}
}

func (n *node) feedTarget(id string, e Event) {
	t := n.agent.targets[id]
	if t == nil {
		return
	}
	acts := t.Step(n.clock(), e)
	if t.Done() && t.Record().Target.Resumed {
		n.arrived[t.Record().Target.PodUID] = true
	}
	n.w.logf("node %d target %s %s %s%s -> %s", n.id, id, e.Kind, e.Op, e.Outcome, ops(acts))
	for _, a := range acts {
		n.targetDo(id, a)
	}
}

func ops(acts []Action) (s string) {
	for _, a := range acts {
		s += fmt.Sprintf("%s %s; ", a.Op, a.Change.Verb)
	}
	return s
}

// act does something on the node: the effect, and later the news of it, if the agent lives
// to see either. effect gives the news.
func (n *node) act(name string, effect func() Event, feed func(Event)) {
	w, life := n.w, n.agent.life
	alive := func() bool { return n.agent.up && n.agent.life == life }
	w.later(name, func() {
		if !alive() {
			return
		}
		e := effect()
		w.logf("node %d: %s: %s", n.id, name, e.Kind)
		w.later(name+" done", func() {
			if alive() {
				feed(e)
			}
		})
	})
}

// tell is news for whatever agent lives on the node when it arrives.
func (n *node) tell(name string, feed func()) {
	n.w.sent(name, func() {
		if n.agent.up {
			feed()
		}
	})
}

// shared are the actions that both sides have.
func (n *node) shared(id string, a Action, uid string, feed func(Event)) bool {
	w, m := n.w, n.w.move(id)
	switch a.Op {
	case OpRead, OpConfirm:
		n.call(string(a.Op), func() Event {
			e := Event{Kind: Read, Outcome: OK, Record: *w.api.recs[id]}
			if a.Op == OpConfirm {
				m.confirmed = e.Record.Version
				e.Confirmed, e.Unwanted = true, w.unwanted(m)
			}
			return e
		}, feed, Event{Kind: Read, Outcome: Unknown})
	case OpWrite:
		boot := n.boot
		n.call("write "+string(a.Change.Verb), func() Event {
			e := w.store(id, a.Change, a.Version)
			if a.Change.Verb == Commit && e.Outcome == OK {
				m.committer = boot
			}
			return e
		}, feed, Event{Kind: Wrote, Outcome: Unknown})
	case OpReadNode:
		n.call("node", func() Event {
			return Event{Kind: Node, Outcome: OK, BootID: w.api.nodeBoot[m.dst], Gone: w.api.nodeGone[m.dst]}
		}, feed, Event{Kind: Node, Outcome: Unknown})
	case OpFence:
		n.act("fence", func() Event {
			fails := w.slip(0.03)
			if !fails || w.slip(0.5) {
				n.fences[uid] = max(n.fences[uid], w.api.recs[id].Epoch)
			}
			if fails {
				return Event{Kind: Failed, Op: OpFence}
			}
			return Event{Kind: Done, Op: OpFence}
		}, feed)
	case OpLift:
		n.act("lift", func() Event {
			if n.fences[uid] <= w.api.recs[id].Epoch {
				delete(n.fences, uid)
			}
			return Event{Kind: Done, Op: OpLift}
		}, feed)
	default:
		return false
	}
	return true
}

func (w *world) unwanted(m *move) string {
	switch {
	case m.cancelled:
		return "the move is being deleted"
	case w.api.pods[m.from].deleted:
		return "the source pod is being deleted"
	case w.api.pods[m.to].deleted:
		return "the replacement is being deleted"
	}
	return ""
}

func (n *node) sourceDo(id string, a Action) {
	w, m := n.w, n.w.move(id)
	feed := func(e Event) { n.feedSource(id, e) }
	if n.shared(id, a, m.from, feed) {
		return
	}
	done, failed := Event{Kind: Done, Op: a.Op}, Event{Kind: Failed, Op: a.Op, Reason: "bad luck"}
	switch a.Op {
	case OpDump:
		n.act("dump", func() Event {
			living := n.moving(m)
			if len(living) < w.size || w.slip(0.05) {
				return failed
			}
			for _, p := range living {
				// Several are frozen before the first is dumped, one is by its dump.
				p.criu, p.frozen = "dumping", w.size > 1 && !w.opt.noFreeze
			}
			w.later("dumped", func() { n.dumped(m) })
			return Event{Kind: Began, Op: a.Op}
		}, feed)
	case OpSend:
		n.act("send", func() Event {
			dst := w.nodes[m.dst]
			if !dst.up || !dst.agent.up || w.slip(0.08) {
				return failed // away, or the images were corrupt
			}
			dst.images[m.id] = true
			dst.tell("images", func() { dst.feedTarget(m.id, Event{Kind: Images}) })
			if w.slip(0.05) {
				return failed // the answer was lost
			}
			return done
		}, feed)
	case OpThaw:
		n.act("thaw", func() Event {
			if w.slip(0.05) {
				return failed
			}
			for _, p := range n.moving(m) {
				p.criu, p.frozen = "", false
			}
			return done
		}, feed)
	case OpEnd:
		n.act("end", func() Event {
			if w.slip(0.05) {
				return failed
			}
			for _, p := range n.procs {
				if p.uid == m.from && !p.dead {
					p.dead = true
					if w.nodes[m.dst].lacking(m.to) {
						w.fail("the source was ended while a copy lacked its memory")
					}
					// Killed from outside between mark and thaw, or started and then booted or
					// lost, counts as having run.
					r := w.api.recs[id]
					booted := r.Target.Starting && r.Target.BootID != w.nodes[m.dst].bootID()
					if !m.copyRan && !m.marked && !booted {
						w.fail("the source was ended before the copy ran")
					}
					if r.Source.Keep && !r.Adopted && !r.Lost {
						w.fail("the source was ended while its owner counted on it")
					}
				}
			}
			return done
		}, feed)
	}
}

// dumped is CRIU reaching post-dump in every container, or failing in one.
func (n *node) dumped(m *move) {
	living := n.moving(m)
	failed := len(living) < n.w.size || n.w.slip(0.05)
	for _, p := range living {
		failed = failed || p.criu != "dumping"
	}
	for _, p := range living {
		if failed {
			p.criu = ""
		} else {
			p.criu, p.frozen = "dumped", !n.w.opt.noFreeze
		}
	}
	if failed {
		n.tell("dump failed", func() { n.feedSource(m.id, Event{Kind: Failed, Op: OpDump, Reason: "bad luck"}) })
		return
	}
	n.tell("dump held", func() { n.feedSource(m.id, Event{Kind: Held}) })
}

func (n *node) targetDo(id string, a Action) {
	w, m := n.w, n.w.move(id)
	feed := func(e Event) { n.feedTarget(id, e) }
	if n.shared(id, a, m.to, feed) {
		return
	}
	done, failed := Event{Kind: Done, Op: a.Op}, Event{Kind: Failed, Op: a.Op, Reason: "bad luck"}
	switch a.Op {
	case OpRestore:
		n.act("restore", func() Event {
			x := n.waiter(a.ID)
			if x == nil {
				return failed
			}
			if !n.images[id] {
				w.fail("a restore from images that are not complete")
			}
			x.ordered = true
			p := &proc{uid: m.to, id: a.ID, name: x.name, criu: "restoring", lacks: w.opt.postCopy}
			if from := w.sourceOf(m, x.name); from != nil {
				p.memory, p.tick = from.memory, from.tick
			}
			n.procs = append(n.procs, p)
			w.later("restored", func() { n.restored(m, p) })
			return Event{Kind: Began, Op: a.Op}
		}, feed)
	case OpLook:
		n.act("look", func() Event {
			if w.slip(0.05) {
				return failed
			}
			e := Event{Kind: Looked}
			for _, p := range n.procs {
				if p.uid == m.to && (p.passed || !p.dead) {
					e.Copies = append(e.Copies, Copy{ID: p.id, Name: fmt.Sprint(p.name), Alive: !p.dead, Frozen: p.frozen})
				}
			}
			return e
		}, feed)
	case OpPass:
		n.hung, n.cancelled = nil, false
		n.pass(a, feed)
	case OpCancel:
		n.cancelled = true
		if n.hung != nil {
			w.later("pass broken off", n.hung)
			n.hung = nil
		}
	case OpResume:
		n.resume(m, a, feed)
	case OpResumeRest:
		n.begun[m.to], m.marked = true, true
		n.thawAll(a, n.all(m.to), feed)
	case OpLoad:
		n.load(m, feed)
	case OpDrop:
		n.act("drop", func() Event { return n.drop(m, done, failed) }, feed)
	case OpKill:
		life := n.agent.life
		w.later("take mark", func() {
			if n.agent.up && n.agent.life == life {
				if !w.opt.keepMark {
					delete(n.begun, m.to)
				}
				n.killCopy(m, done, feed)
			}
		})
	case OpRefuse:
		n.act("refuse", func() Event {
			n.dropWaiter(a.ID)
			return done
		}, feed)
	case OpFresh:
		n.act("fresh", func() Event {
			if x := n.waiter(a.ID); x != nil || w.opt.blindFresh {
				if !w.api.recs[id].Target.Resumed {
					w.fail("a cold start on the target before the move was acknowledged")
				}
				name := 0
				if x != nil {
					name = x.name
				}
				n.dropWaiter(a.ID)
				for _, p := range n.all(m.to) {
					if p.name == name || w.opt.freshAll {
						n.kill(p)
					}
					if p.dead && p.name != name {
						w.fail("a create of one container ended another")
					}
				}
				// Between create and start drover-runc looks for a fence again.
				if n.fences[m.to] == 0 || w.opt.ignoreFence {
					n.procs = append(n.procs, &proc{uid: m.to, id: a.ID, name: name, known: true})
				}
			}
			return done
		}, feed)
	}
}

func (n *node) killCopy(m *move, done Event, feed func(Event)) {
	n.act("kill", func() Event {
		for _, p := range n.procs {
			if p.uid == m.to && !p.dead {
				p.dead = true
				n.dropWaiter(p.id)
			}
		}
		return done
	}, feed)
}

// sourceOf is the container that moves, frozen or dead since it was dumped.
func (w *world) sourceOf(m *move, name int) *proc {
	for _, p := range slices.Backward(w.nodes[m.src].procs) {
		// The last: a restore that failed may have been tried again under one ID.
		if slices.Contains(m.containers, p.id) && p.name == name {
			return p
		}
	}
	return nil
}

// restored is CRIU reaching pre-resume, or failing.
func (n *node) restored(m *move, p *proc) {
	if p.dead || p.criu != "restoring" {
		return
	}
	if n.w.slip(0.05) {
		p.dead = true
		n.dropWaiter(p.id)
		n.tell("restore failed", func() { n.feedTarget(m.id, Event{Kind: Failed, Op: OpRestore, Reason: "bad luck"}) })
		return
	}
	p.criu, p.frozen = "held", !n.w.opt.noFreeze
	n.tell("restore held", func() { n.feedTarget(m.id, Event{Kind: Held, ID: p.id}) })
}

// pass is two effects with a possible crash between them: the note, and letting the hook go.
func (n *node) pass(a Action, feed func(Event)) {
	w, life := n.w, n.agent.life
	alive := func() bool { return n.agent.up && n.agent.life == life }
	w.later("note pass", func() {
		p, x := n.byID(a.ID), n.waiter(a.ID)
		if !alive() {
			return
		}
		if p == nil || p.criu != "held" || !p.frozen || x == nil || w.slip(0.03) {
			w.later("pass failed", func() {
				if alive() {
					feed(Event{Kind: Failed, Op: OpPass, Reason: "bad luck"})
				}
			})
			return
		}
		p.passed = true
		if w.slip(0.03) {
			// CRIU, runc or containerd hangs, for good: this ends by OpCancel alone.
			w.logf("node %d: pass of %s hangs", n.id, p.id)
			n.hung = func() {
				if alive() {
					feed(Event{Kind: Failed, Op: OpPass, Reason: "broken off"})
				}
			}
			if n.cancelled {
				w.later("pass broken off", n.hung)
				n.hung = nil
			}
			return
		}
		w.later("answer passed hook", func() {
			if alive() {
				e := Event{Kind: Done, Op: OpPass}
				if !n.answerPassed(p) {
					e = Event{Kind: Failed, Op: OpPass, Reason: "the create has gone"}
				}
				w.later("pass done", func() {
					if alive() {
						feed(e)
					}
				})
			}
		})
	})
}

// answerPassed lets CRIU go on with a copy that stays frozen; false: its create has gone.
func (n *node) answerPassed(p *proc) bool {
	if p.dead || p.criu != "held" {
		return !p.dead && p.known
	}
	p.criu, p.known = "", n.waiter(p.id) != nil
	p.frozen = p.frozen && !n.w.opt.passThaws
	n.dropWaiter(p.id)
	n.w.logf("node %d: create %s returns, its copy stays frozen", n.id, p.id)
	return p.known
}

// resume is several effects with a possible crash between them: mark, thaw one after the
// other, let the hook go.
func (n *node) resume(m *move, a Action, feed func(Event)) {
	w, life := n.w, n.agent.life
	alive := func() bool { return n.agent.up && n.agent.life == life }
	fits := func() bool {
		p, x := n.byID(a.ID), n.waiter(a.ID)
		for _, p := range n.procs {
			if p.uid == m.to && p.passed && (p.dead || !p.frozen) && !w.opt.mutant.passThawed {
				return false
			}
		}
		return p != nil && p.criu == "held" && (x != nil || w.opt.mutant.orphanResume)
	}
	w.later("mark", func() {
		if !alive() {
			return
		}
		if !fits() || w.slip(0.03) || w.opt.keepMark && n.begun[m.to] && w.slip(0.5) {
			w.later("resume failed", func() {
				if alive() {
					feed(Event{Kind: Failed, Op: OpResume, Reason: "bad luck"})
				}
			})
			return
		}
		n.begun[m.to], m.marked = true, true
		for _, p := range n.all(m.to) {
			if p.runs() {
				w.fail("a copy ran before the others were let go")
			}
		}
		if len(n.all(m.to)) < w.size {
			w.fail("let go with %d of %d copies", len(n.all(m.to)), w.size)
		}
		n.thawAll(a, n.all(m.to), feed)
	})
}

// thawAll thaws one copy after the other, then lets the hook of the last go.
func (n *node) thawAll(a Action, left []*proc, feed func(Event)) {
	w, life := n.w, n.agent.life
	alive := func() bool { return n.agent.up && n.agent.life == life }
	w.later("thaw copy", func() {
		if !alive() {
			return
		}
		if len(left) > 0 {
			left[0].frozen = false
			w.logf("node %d: copy %s thawed", n.id, left[0].id)
		}
		if len(left) > 1 {
			n.thawAll(a, left[1:], feed)
			return
		}
		w.later("answer hook", func() {
			if alive() {
				n.answerHook(a.ID)
			}
			if alive() {
				feed(Event{Kind: Done, Op: a.Op})
			}
		})
	})
}

// answerHook lets CRIU go on with a copy that is thawed: runc ends, and so does the create.
// Without a create kubelet has lost sight of the copy, and it is ended.
func (n *node) answerHook(id string) {
	p, x := n.byID(id), n.waiter(id)
	if p == nil || p.known || p.frozen {
		return
	}
	p.criu, p.known = "", x != nil
	switch {
	case x != nil:
		n.dropWaiter(id)
	case !n.w.opt.mutant.orphanResume:
		n.kill(p)
		n.w.crashed = true
	}
}

// dropWaiter is a create that ends, for whatever reason.
func (n *node) dropWaiter(id string) {
	for i, x := range n.waiters {
		if x.id == id {
			n.waiters = append(n.waiters[:i:i], n.waiters[i+1:]...)
			n.toTargets(x.uid, Event{Kind: WaiterGone, ID: id})
			return
		}
	}
}

// toTargets tells the machine of the move whose replacement uid is.
func (n *node) toTargets(uid string, e Event) {
	for _, m := range n.w.moves {
		if m.to == uid && m.dst == n.id {
			n.tell(string(e.Kind), func() {
				if n.agent.targets[m.id] == nil {
					n.adopt(m.id)
					return
				}
				n.feedTarget(m.id, e)
			})
		}
	}
}

func (n *node) toSources(uid string, e Event) {
	for _, m := range n.w.moves {
		if m.from == uid && m.src == n.id && slices.Contains(m.containers, e.ID) {
			n.tell(string(e.Kind), func() { n.feedSource(m.id, e) })
		}
	}
}

// kill ends processes from outside (kubelet, an oom kill) and tells.
func (n *node) kill(p *proc) {
	p.dead = true
	n.toSources(p.uid, Event{Kind: Died, ID: p.id})
	n.toTargets(p.uid, Event{Kind: Died, ID: p.id})
}

const createWait = 100 * time.Second
