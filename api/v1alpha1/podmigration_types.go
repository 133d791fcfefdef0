package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// PodMigration is one move of one pod from the node it runs on to another: the wish in
// the spec, and in the status the record by which commit and abort exclude each other.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.status) || !has(oldSelf.status.decision) || size(oldSelf.status.decision) == 0 || (has(self.status) && has(self.status.decision))",message="a decision cannot be taken away"
// +kubebuilder:validation:XValidation:rule="(has(self.spec.postCopy) && self.spec.postCopy) || !has(self.status) || !(has(self.status.target) && has(self.status.target.loaded) && self.status.target.loaded || has(self.status.source) && has(self.status.source.forfeited) && self.status.source.forfeited)",message="only the memory of a move with postCopy can be loaded late, or be lost to it"
// +kubebuilder:validation:XValidation:rule="!has(self.spec.postCopy) || !self.spec.postCopy || !has(self.status) || !(has(self.status.source) && has(self.status.source.ended) && self.status.source.ended || has(self.status.handedOver) && self.status.handedOver) || (has(self.status.target) && has(self.status.target.loaded) && self.status.target.loaded) || (has(self.status.lost) && self.status.lost)",message="the source of a move with postCopy is kept until all of the memory is loaded"
// +kubebuilder:resource:shortName=pmig,categories=drover
// +kubebuilder:printcolumn:name="Pod",type=string,JSONPath=`.spec.podName`
// +kubebuilder:printcolumn:name="From",type=string,JSONPath=`.status.source.node`
// +kubebuilder:printcolumn:name="To",type=string,JSONPath=`.status.target.node`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Frozen",type=string,JSONPath=`.status.frozenTime`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type PodMigration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   PodMigrationSpec   `json:"spec"`
	Status PodMigrationStatus `json:"status,omitempty"`
}

// PodMigrationList is a list of PodMigration.
//
// +kubebuilder:object:root=true
type PodMigrationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PodMigration `json:"items"`
}

// PodMigrationSpec is the wish. It cannot be changed.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="the spec of a PodMigration cannot be changed: delete it and make a new one"
type PodMigrationSpec struct {
	// PodName is the pod to move, in the namespace of the PodMigration.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	PodName string `json:"podName"`
	// PodUID pins the pod object; a pod of the same name with another UID is not moved.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=128
	PodUID types.UID `json:"podUID,omitempty"`
	// TargetNode is where it shall go. Empty: the scheduler chooses.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$`
	// +optional
	TargetNode string `json:"targetNode,omitempty"`
	// KeepName is the name that the replacement gets, in place of a new one. Written by
	// drover-controller alone, for the second step of a pod that keeps its name.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$`
	// +optional
	KeepName string `json:"keepName,omitempty"`
	// PostCopy: the pod runs on the target before all of its memory is there, and until then depends
	// on both nodes: what is lost with the source is lost, and its containers start anew. So it is if
	// the source's processes end: its node fails or is booted, its pod is deleted or evicted, it is out
	// of memory. The source is never taken back once the copy may have run. While the network between
	// the nodes is cut, the pod waits for the pages it touches. The source's pod, which answers nobody
	// then, stays a ready endpoint of its Services until all of the memory is there. Without it a move
	// never depends on two nodes.
	// +optional
	PostCopy bool `json:"postCopy,omitempty"`
	// Reason tells why, for people: "User", "Contention".
	// +kubebuilder:validation:MaxLength=64
	// +optional
	Reason string `json:"reason,omitempty"`
	// Message is the reason in a sentence, with the figures that led to it.
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	Message string `json:"message,omitempty"`
}

// Decision is the outcome. Once set it never changes: it is set by compare-and-swap on
// the object's resourceVersion, and the API server refuses a second value.
//
// +kubebuilder:validation:Enum="";Commit;Abort
type Decision string

// The decisions.
const (
	Undecided Decision = ""
	Commit    Decision = "Commit"
	Abort     Decision = "Abort"
)

// Phase is a summary of the record for people and for printing; no program decides by it.
//
// +kubebuilder:validation:Enum="";Pending;Reserving;Preparing;Transferring;Restoring;Committed;Completed;Aborted;Returned;Lost;Rejected
type Phase string

// The phases, in the order in which a good move passes them, then the other ends.
const (
	PhasePending      Phase = "Pending"      // seen, not judged yet
	PhaseReserving    Phase = "Reserving"    // the replacement exists and waits for a node
	PhasePreparing    Phase = "Preparing"    // the replacement is bound; its create has to reach drover-runc
	PhaseTransferring Phase = "Transferring" // the source is frozen; images are written and sent
	PhaseRestoring    Phase = "Restoring"    // images are complete on the target
	PhaseCommitted    Phase = "Committed"    // the target owns the pod; the owner does not know yet
	PhaseCompleted    Phase = "Completed"    // handed over, the source is gone
	PhaseAborted      Phase = "Aborted"      // not moved: the source goes on, or it was deleted in the middle
	PhaseReturned     Phase = "Returned"     // committed, but the target was proven dead: the source goes on
	PhaseLost         Phase = "Lost"         // committed and starting, then the target was gone: its memory is lost, its owner starts anew
	PhaseRejected     Phase = "Rejected"     // never begun; the condition Accepted says why
)

// Condition types of a PodMigration.
const (
	// ConditionAccepted: the pod may be moved. False with a reason: it was not, nothing changed.
	ConditionAccepted = "Accepted"
	// ConditionMovable: what only the nodes can see of the pod, examined before anything is
	// frozen: its processes by the source's agent, the processor by the target's. Theirs to
	// write; nobody decides by it.
	ConditionMovable = "Movable"
	// ConditionHeld: the pod stands still, longer than a moment, and waits for what the message
	// says. The controller's, for people.
	ConditionHeld = "Held"
	// ConditionReserved: the replacement has a node.
	ConditionReserved = "Reserved"
	// ConditionDecided: committed or aborted, with the reason of an abort.
	ConditionDecided = "Decided"
	// ConditionSourceTerminating: after the commit, before the hand-over, the source was seen
	// to be deleted, for the reason "Deletion" (the replacement goes too) or "Disruption"
	// (it stays). Never taken back.
	ConditionSourceTerminating = "SourceTerminating"
	// ConditionNameHeld: the pod keeps its name, which nobody else may take until this move is
	// over. Never taken back.
	ConditionNameHeld = "NameHeld"
	// ConditionNameDeleted: in the second step of such a move, the pod that was to have the
	// name was deleted before the decision, by somebody who meant it. Never taken back.
	ConditionNameDeleted = "NameDeleted"
	// ConditionComplete: nothing is left to do; the message is the outcome in one line.
	ConditionComplete = "Complete"
)

// PodMigrationStatus is the record. Each field has one writer, named in its comment; all
// writes are updates guarded by resourceVersion.
//
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.decision) || size(oldSelf.decision) == 0 || (has(self.decision) && self.decision == oldSelf.decision)",message="a decision cannot be changed"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.epoch) || oldSelf.epoch == 0 || (has(self.epoch) && self.epoch >= oldSelf.epoch)",message="an epoch cannot go back"
// +kubebuilder:validation:XValidation:rule="!has(self.decision) || self.decision != 'Commit' || (has(self.source) && has(self.source.offered) && self.source.offered)",message="a move can be committed only after its source has offered"
// +kubebuilder:validation:XValidation:rule="!has(self.target) || !has(self.target.resumed) || !self.target.resumed || (has(self.decision) && self.decision == 'Commit')",message="the target can resume only after a commit"
// +kubebuilder:validation:XValidation:rule="!has(self.returned) || !self.returned || (has(self.decision) && self.decision == 'Commit')",message="ownership can return only after a commit"
// +kubebuilder:validation:XValidation:rule="!has(self.returned) || !self.returned || !has(self.target) || !has(self.target.resumed) || !self.target.resumed",message="a pod that has resumed on the target cannot return"
// +kubebuilder:validation:XValidation:rule="!has(self.target) || !has(self.target.failed) || !self.target.failed || !has(self.target.resumed) || !self.target.resumed",message="a copy has either resumed or failed"
// +kubebuilder:validation:XValidation:rule="!has(self.target) || !has(self.target.starting) || !self.target.starting || (has(self.decision) && self.decision == 'Commit')",message="a copy can start only after a commit"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.target) || !has(oldSelf.target.starting) || !oldSelf.target.starting || (has(self.target) && has(self.target.starting) && self.target.starting)",message="that a copy was starting cannot be taken back"
// +kubebuilder:validation:XValidation:rule="!has(self.target) || !has(self.target.resumed) || !self.target.resumed || (has(self.target.starting) && self.target.starting)",message="a target says that its copy is starting before it resumes"
// +kubebuilder:validation:XValidation:rule="!has(self.returned) || !self.returned || !has(self.target) || !has(self.target.starting) || !self.target.starting || (has(self.target.failed) && self.target.failed)",message="once the copy was starting a pod returns only if its target says that it failed"
// +kubebuilder:validation:XValidation:rule="!has(self.lost) || !self.lost || (has(self.target) && has(self.target.starting) && self.target.starting && (!has(self.target.resumed) || !self.target.resumed) && (!has(self.returned) || !self.returned))",message="a pod is lost only if its copy was starting and has neither resumed nor returned"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.lost) || !oldSelf.lost || (has(self.lost) && self.lost)",message="a loss cannot be taken back"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.target) || !has(oldSelf.target.podUID) || (has(self.target) && has(self.target.podUID) && self.target.podUID == oldSelf.target.podUID)",message="the replacement cannot be changed"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.source) || !has(oldSelf.source.podUID) || (has(self.source) && has(self.source.podUID) && self.source.podUID == oldSelf.source.podUID)",message="the source cannot be changed"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.source) || !has(oldSelf.source.podUID) || (has(oldSelf.source.keepUntilAdopted) && oldSelf.source.keepUntilAdopted) == (has(self.source.keepUntilAdopted) && self.source.keepUntilAdopted)",message="whether the source is kept until it is adopted cannot be changed"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.adopted) || !oldSelf.adopted || (has(self.adopted) && self.adopted)",message="an adoption cannot be taken back"
// +kubebuilder:validation:XValidation:rule="!has(self.adopted) || !self.adopted || (has(self.target) && has(self.target.resumed) && self.target.resumed)",message="a pod can be adopted only after it has resumed on the target"
// +kubebuilder:validation:XValidation:rule="!has(self.source) || !has(self.source.ended) || !self.source.ended || !has(self.source.keepUntilAdopted) || !self.source.keepUntilAdopted || (has(self.adopted) && self.adopted) || (has(self.lost) && self.lost)",message="a source that is kept until it is adopted cannot end before"
// +kubebuilder:validation:XValidation:rule="!has(self.connections) || !has(self.connections.leaseEnded) || !self.connections.leaseEnded || (self.connections.state == 'Kept' && has(self.target) && has(self.target.resumed) && self.target.resumed)",message="a lease ends only after the pod has resumed with its connections"
// +kubebuilder:validation:XValidation:rule="!has(self.connections) || !has(self.connections.earlier) || !self.connections.earlier.exists(e, has(e.ended) && e.ended) || (self.connections.state == 'Kept' && has(self.target) && has(self.target.resumed) && self.target.resumed)",message="the lease of an earlier address ends only after the pod has resumed with its connections"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.connections) || has(self.connections)",message="what becomes of the connections cannot be taken away"
// +kubebuilder:validation:XValidation:rule="has(oldSelf.connections) || !has(self.connections) || !has(self.target) || !has(self.target.waiting) || !self.target.waiting",message="that connections are to be kept is said before the target waits"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.target) || !has(oldSelf.target.loaded) || !oldSelf.target.loaded || (has(self.target) && has(self.target.loaded) && self.target.loaded)",message="that all of the memory is loaded cannot be taken back"
// +kubebuilder:validation:XValidation:rule="!has(self.target) || !has(self.target.loaded) || !self.target.loaded || (has(self.target.resumed) && self.target.resumed)",message="the memory is loaded only after the copy has resumed"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.source) || !has(oldSelf.source.forfeited) || !oldSelf.source.forfeited || (has(self.source) && has(self.source.forfeited) && self.source.forfeited)",message="that memory is lost cannot be taken back"
// +kubebuilder:validation:XValidation:rule="!has(self.source) || !has(self.source.forfeited) || !self.source.forfeited || (has(self.decision) && self.decision == 'Commit')",message="memory is forfeited only after a commit"
type PodMigrationStatus struct {
	// Phase, derived from the rest by whoever writes.
	// +optional
	Phase Phase `json:"phase,omitempty"`
	// Epoch is greater than that of every earlier move of this pod or its lineage.
	// Written by the controller; raised by one by the source's agent when ownership returns.
	// +optional
	Epoch int64 `json:"epoch,omitempty"`
	// Decision, written once by whoever's compare-and-swap wins.
	// +optional
	Decision Decision `json:"decision,omitempty"`
	// DecisionBy is who decided: "source NODE", "target NODE", "controller".
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	DecisionBy string `json:"decisionBy,omitempty"`
	// DecisionReason is a CamelCase word, DecisionMessage a sentence.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^([A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?)?$`
	DecisionReason string `json:"decisionReason,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	DecisionMessage string `json:"decisionMessage,omitempty"`
	// DecidedAt is when, by the decider's clock.
	// +optional
	DecidedAt *metav1.MicroTime `json:"decidedAt,omitempty"`

	// Source: identity written by the controller, progress by the source's agent.
	// +optional
	Source SourceStatus `json:"source,omitempty"`
	// Target: identity written by the controller, progress by the target's agent.
	// +optional
	Target TargetStatus `json:"target,omitempty"`

	// Adopted: the owner does not count on the source pod any more: it has the replacement,
	// or was seen not to want it, or that is not ready in time. Controller.
	// +optional
	Adopted bool `json:"adopted,omitempty"`
	// Budget is what is reserved of the source's PodDisruptionBudget. Controller.
	// +optional
	Budget *BudgetReservation `json:"budget,omitempty"`

	// HandedOver: the owner has the replacement and the source object is gone. Controller.
	// +optional
	HandedOver bool `json:"handedOver,omitempty"`
	// Returned: ownership is back at the source under a higher epoch. Source's agent, by
	// compare-and-swap, with proof that the target is dead.
	// +optional
	Returned bool `json:"returned,omitempty"`
	// ReturnProof is that proof in words.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	ReturnProof string `json:"returnProof,omitempty"`

	// Lost: the copy was starting, and its node is gone from the cluster. It may have run, so
	// the source is ended instead of going on from an older state. Source's agent.
	// +optional
	Lost bool `json:"lost,omitempty"`
	// LostMessage says what is lost and why.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	LostMessage string `json:"lostMessage,omitempty"`

	// Connections is what becomes of the pod's old address and its open connections. Absent: the
	// pod does not ask to keep them, and they are closed.
	// +optional
	Connections *ConnectionsStatus `json:"connections,omitempty"`

	// Bytes of checkpoint images sent. Source's agent.
	// +optional
	Bytes int64 `json:"bytes,omitempty"`
	// Transfer is how far the images are, and in the end what they took, for people: no program
	// decides by it. Source's agent, once a second while they are sent, and when they are complete.
	// +optional
	Transfer *TransferStatus `json:"transfer,omitempty"`
	// FrozenTime is from the freeze to the acknowledgement, by the source's clock. Source's agent.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	FrozenTime *metav1.Duration `json:"frozenTime,omitempty"`
	// Timeline is what happened, in the order of writing.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Timeline []TimelineEntry `json:"timeline,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// TransferStatus is how far the memory of a pod is on its way.
type TransferStatus struct {
	// AheadBytes of memory were sent before the freeze, in Rounds over all of it.
	// +optional
	AheadBytes int64 `json:"aheadBytes,omitempty"`
	// +optional
	Rounds int64 `json:"rounds,omitempty"`
	// SentBytes of images are on the target, of TotalBytes, which is not known before the dump
	// is complete.
	// +optional
	SentBytes int64 `json:"sentBytes,omitempty"`
	// +optional
	TotalBytes int64 `json:"totalBytes,omitempty"`
	// WireBytes is what all of it took on the link, compressed.
	// +optional
	WireBytes int64 `json:"wireBytes,omitempty"`
	// BytesPerSecond of memory and images, over the last seconds; TimeLeft for the rest of the
	// images at that rate.
	// +optional
	BytesPerSecond int64 `json:"bytesPerSecond,omitempty"`
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	TimeLeft *metav1.Duration `json:"timeLeft,omitempty"`
}

// SourceStatus is the side that the pod leaves.
type SourceStatus struct {
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=253
	PodName string `json:"podName,omitempty"`
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=128
	PodUID types.UID `json:"podUID,omitempty"`
	// Containers are those that move, in the order in which kubelet starts them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Containers []MovingContainer `json:"containers,omitempty"`
	// Origin is the UID of the first pod of the lineage, which names it over all its moves.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=128
	Origin types.UID `json:"origin,omitempty"`
	// OwnerUID is the UID of the controlling owner at the start; empty for a bare pod.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=128
	OwnerUID types.UID `json:"ownerUID,omitempty"`
	// BootID of the source's kernel when the move began.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	BootID string `json:"bootID,omitempty"`
	// KeepUntilAdopted: the processes may be ended only once the status says adopted, for an
	// owner (a Job) that would take the end of its pod for a failure. Controller, with podUID.
	// While the old address is leased it is so for every owner.
	// +optional
	KeepUntilAdopted bool `json:"keepUntilAdopted,omitempty"`
	// Offered: frozen, dumped, fenced on disk, and the target has confirmed complete,
	// verified images. Only now may the target commit.
	// +optional
	Offered bool `json:"offered,omitempty"`
	// Ended: after commit and acknowledgement, or a loss, the source's processes are gone.
	// +optional
	Ended bool `json:"ended,omitempty"`
	// Forfeited: of a move with postCopy, what of the memory the target has not fetched yet is lost.
	// Source's agent; the controller, for a node that is gone.
	// +optional
	Forfeited bool `json:"forfeited,omitempty"`
	// Released: after an abort (or a return) the source was let go on, its fence lifted.
	// +optional
	Released bool `json:"released,omitempty"`
}

// MovingContainer is one container of the source pod.
type MovingContainer struct {
	// Name in the pod's spec.
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// ID is its runtime ID without scheme.
	// +kubebuilder:validation:MaxLength=256
	ID string `json:"id"`
}

// TargetStatus is the side that the pod goes to.
type TargetStatus struct {
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node,omitempty"`
	// PodName and PodUID are the replacement's.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	PodName string `json:"podName,omitempty"`
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=128
	PodUID types.UID `json:"podUID,omitempty"`
	// BootID of the target's kernel when the create began to wait.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	BootID string `json:"bootID,omitempty"`
	// Waiting: drover-runc waits in create, until Deadline.
	// +optional
	Waiting bool `json:"waiting,omitempty"`
	// Deadline is when the waiting create gives up, by the target's clock.
	// +optional
	Deadline *metav1.MicroTime `json:"deadline,omitempty"`
	// Starting: written before the copy is let run. From then on it may have run, and neither
	// a new boot ID nor a node that is gone gives the pod back to its source.
	// +optional
	Starting bool `json:"starting,omitempty"`
	// Resumed: the acknowledgement; the restored processes run, or have run.
	// +optional
	Resumed bool `json:"resumed,omitempty"`
	// Loaded: of a move with postCopy, nothing is asked of the source any more: all of the memory is
	// there, or what lacked some has ended. Target's agent; the source's, with proof that no copy can ask.
	// +optional
	Loaded bool `json:"loaded,omitempty"`
	// Failed: the target's copy is dead and fenced and will never run. After a commit
	// this is the proof by which ownership may return.
	// +optional
	Failed bool `json:"failed,omitempty"`
	// FailedMessage says why.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	FailedMessage string `json:"failedMessage,omitempty"`
	// Cleaned: after an abort, a return or a loss nothing of the attempt is left on the target.
	// +optional
	Cleaned bool `json:"cleaned,omitempty"`
}

// TimelineEntry is one step of the move.
type TimelineEntry struct {
	// Step is a CamelCase word: "Accepted", "Reserved", "CreateWaiting", "Frozen", "Dumped",
	// "Sent", "Restored", "Committed", "Resumed", "SourceEnded", "HandedOver", ...
	// +kubebuilder:validation:MaxLength=64
	Step string `json:"step"`
	// By is the node's name or "controller".
	// +kubebuilder:validation:MaxLength=1024
	By string `json:"by"`
	// At by the writer's clock.
	At metav1.MicroTime `json:"at"`
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	Message string `json:"message,omitempty"`
}
