// Package handoff decides which of two nodes may run a pod while it moves. It is made of
// state machines: an event comes in, actions go out, and whoever drives them carries the
// actions out and reports back with events. Nothing here does I/O, reads a clock or
// starts a goroutine, and a machine is not safe for concurrent use.
//
// The record of a move lives in the API server. Commit and abort are compare-and-swaps on
// its version, so that one of them wins. The rules that the machines keep:
//
//   - Nobody acts on a timeout. A deadline makes somebody *try* an abort, no more; what
//     touches processes follows from the record alone.
//   - An answer that is lost means that nothing is known: both sides stay held, and the
//     record is read again.
//   - What a machine acts on (a decision, an acknowledgement, a failure, a return) is
//     never taken back in the record. Acting on an old record is therefore safe: it can
//     lack a fact, never hold a wrong one.
//   - The source offers only when it is fenced on disk, frozen and dumped, and the target
//     has confirmed complete images. The target commits only what is offered, only with a
//     copy that is restored, held and frozen, and right after having read the record, the
//     pods and the owner once more.
//   - The target says in the record that its copy is starting before it lets it run. That its
//     copies are still held it looks at itself right before the commit and the start; one that
//     somebody else has let go after the commit counts as one that ran.
//   - The source ends its processes only after the target has acknowledged that it runs,
//     and takes the pod back only with proof that the target's copy never ran and never
//     will, under a higher epoch: the target's own word, or, as long as it was not starting,
//     a new boot of its kernel or the end of its node. A node that is gone after the start
//     takes the pod with it, for an older state must never run once a newer one did.
//
// A machine keeps next to no history: its next step follows from the record and from
// local facts (is there a fence, is the cgroup frozen, is CRIU's hook waiting). So an
// agent that crashed rebuilds it from what it finds. See docs/architecture.md, "How a pod moves".
package handoff
