package handoff

import "time"

// Op names an action.
type Op string

// Actions of both sides. Each but Cancel is answered by exactly one Done, Failed, Read,
// Wrote or Node event, unless the agent dies.
const (
	// OpRead: read the record from the API server itself, not from a cache; answer with Read.
	OpRead Op = "read"
	// OpConfirm: OpRead, and read the source pod, its owner, the replacement and the
	// PodMigration's own deletion too; answer with Read, Confirmed, and Unwanted if any of
	// them is on its way out.
	OpConfirm Op = "confirm"
	// OpWrite: compare-and-swap Change onto the record at Version; answer with Wrote.
	OpWrite Op = "write"
	// OpReadNode: read the target's Node object from the API server itself; answer with Node.
	OpReadNode Op = "read-node"
	// OpFence: write and sync the fence of this side's pod.
	OpFence Op = "fence"
	// OpLift: remove this side's fence, synced, if it is this move's: of the record's epoch, or
	// after a return of the one before.
	OpLift Op = "lift"
)

// Actions of the source.
const (
	// OpDump: freeze the containers, all before the first is dumped, and dump them. Answered
	// by Held once CRIU holds each at post-dump with the cgroup frozen and the images complete
	// on this node, or by Failed.
	OpDump Op = "dump"
	// OpSend: send the images; Done when the target has them complete and verified, where
	// nothing but a boot can lose them. With PostCopy the images lack what can be loaded later; it
	// is read from the held processes when the target asks, for as long as they are held.
	OpSend Op = "send"
	// OpCancel: make the OpDump or OpSend that is under way, or the target's OpPass, fail soon.
	// Not answered by itself.
	OpCancel Op = "cancel"
	// OpThaw: end a dump in whatever stage it is, then thaw; Done when the processes run.
	OpThaw Op = "thaw"
	// OpEnd: kill every process of the containers; Done when none is left.
	OpEnd Op = "end"
)

// Actions of the target.
const (
	// OpPass is for a copy that is held while others are still to come: let its hook go on
	// and its create return, with its cgroup frozen all along, so that kubelet asks for the next
	// container. Done once the create has returned well and the copy is there, frozen.
	OpPass Op = "pass"
	// OpRestore: tell the waiting create to restore. Answered by Held once CRIU holds at
	// pre-resume with the cgroup frozen, or by Failed.
	OpRestore Op = "restore"
	// OpLook: look at every copy and its freezer, afresh; answer with Looked.
	OpLook Op = "look"
	// OpResume: if the waiter and the hook are still there and every copy is frozen, leave a
	// mark that survives the agent but not a reboot, then thaw them all, then let the hook go
	// on. Done once all are thawed. Failed only if the mark was not left: nothing ran.
	OpResume Op = "resume"
	// OpResumeRest: some copies were let go, or count as such: leave the mark if it is not there,
	// thaw the others, and let the hook go. Done once all are thawed.
	OpResumeRest Op = "resume-rest"
	// OpLoad: wait until every copy has all of its memory, or has ended; Done, at once or in the
	// end. No machine waits for it before it does something else. What is missing is fetched
	// since the restore was begun, whether this was asked for or not.
	OpLoad Op = "load"
	// OpDrop: kill the copies that still lack memory, for it is lost: they would wait for it for
	// ever. Done when they are dead. Whole ones run on, or stay held.
	OpDrop Op = "drop"
	// OpKill is for copies that never ran: take their mark away, then end the restore and kill
	// every process of every copy, without a moment in which it can run, and refuse the create
	// that waits. Done when none is left or can come. A mark that outlived the copies would be
	// taken for copies that ran.
	OpKill Op = "kill"
	// OpRefuse: tell a waiting create that its container must not be created.
	OpRefuse Op = "refuse"
	// OpFresh: the move is over, and a moved container has ended since, or kubelet has lost
	// sight of it. If the create still waits, end what is left of that container's copy, no
	// other's, then tell it to make its container anew. A create that is gone asks for
	// nothing: Done.
	OpFresh Op = "fresh"
)

// Action is one thing to do.
type Action struct {
	Op Op
	// Change and Version belong to OpWrite.
	Change  Change
	Version string
	// ID of the create that OpRestore, OpResume, OpRefuse and OpFresh are about.
	ID string
	// Reason belongs to OpRefuse.
	Reason string
}

// Kind names an event.
type Kind string

// Events of both sides.
const (
	// Seen: the record, by the watch; it may be late, doubled or out of order.
	Seen Kind = "seen"
	// Read answers OpRead and OpConfirm; with Outcome Unknown there is no record (an API
	// server that is away, and also a PodMigration that is gone: then nothing is known).
	Read Kind = "read"
	// Wrote answers OpWrite; with Outcome OK the record is as written, with its new version.
	Wrote Kind = "wrote"
	// Node answers OpReadNode.
	Node Kind = "node"
	// Tick: time has passed, or something that failed may be tried again.
	Tick Kind = "tick"
	// Done and Failed answer the Op they name. Began says that an OpDump or OpRestore is
	// under way; no machine waits for it.
	Done   Kind = "done"
	Failed Kind = "failed"
	Began  Kind = "began"
	// Held: CRIU's hook waits and the cgroup is frozen (post-dump or pre-resume).
	Held Kind = "held"
	// Died: the processes of container ID (source) or of the copy ID (target) are gone.
	Died Kind = "died"
	// Unwanted: the source pod, its owner, the replacement or the move itself is being
	// deleted; Reason says which.
	Unwanted Kind = "unwanted"
)

// Events of the target.
const (
	// WaiterCame: the create of container ID waits, until Deadline.
	WaiterCame Kind = "waiter-came"
	// WaiterGone: the create of container ID has ended, however.
	WaiterGone Kind = "waiter-gone"
	// Images: the images are complete and verified on this node, until it boots.
	Images Kind = "images"
	// Looked answers OpLook; what is not among the Copies is gone.
	Looked Kind = "looked"
	// HookGone: the restore of container ID failed, or CRIU or its hook died while it was held.
	HookGone Kind = "hook-gone"
)

// Outcome is how a call to the API server ended.
type Outcome string

// The outcomes.
const (
	OK       Outcome = "ok"
	Conflict Outcome = "conflict" // certainly not written
	Unknown  Outcome = "unknown"  // written, not written, or to be written later
)

// Event is one thing that happened.
type Event struct {
	Kind    Kind
	Op      Op      // of Done, Failed
	Outcome Outcome // of Read, Wrote, Node
	Record  Record  // of Seen, Read, Wrote with OK
	// Confirmed: this Read answers OpConfirm; Unwanted is empty if nothing is in the way.
	Confirmed bool
	Unwanted  string
	// Reason of Failed, Unwanted.
	Reason string
	// ID of the container that Died is about, and of a target also Held, HookGone, WaiterCame
	// and WaiterGone. Name, of WaiterCame, is the container's in the pod's spec.
	ID, Name string
	// BootID and Gone of Node, as the Node object says.
	BootID string
	Gone   bool
	// Deadline of WaiterCame.
	Deadline time.Time
	// Copies of Looked.
	Copies []Copy
}

// Config holds the spans of time that make a machine try an abort, or not try a commit.
type Config struct {
	// CommitMargin before the waiting create's deadline no commit is tried any more.
	CommitMargin time.Duration
	// Patience is how long the source waits for a decision, by its own clock, from when it
	// saw the create waiting, before it tries an abort.
	Patience time.Duration
}

// DefaultConfig fits a create that waits for 100 s of the 120 s that kubelet gives it.
func DefaultConfig() Config {
	return Config{CommitMargin: 10 * time.Second, Patience: 95 * time.Second}
}
