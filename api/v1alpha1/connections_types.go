package v1alpha1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// ConditionConnectionsKept: the pod takes its address and its open connections along. False:
// they are closed, and the message says why. Absent: the pod does not ask for it, or that is not
// known yet. The target's agent writes it with status.connections.state Kept or Closed, the source's
// with Closed, the controller where it does not let them be probed.
const ConditionConnectionsKept = "ConnectionsKept"

// ConnectionsState is what becomes of the pod's old address and its open connections.
//
// +kubebuilder:validation:Enum=Probing;Kept;Closed
type ConnectionsState string

// The states. Kept and Closed are final.
const (
	// ConnectionsProbing: the target's agent finds out whether the network carries them, before
	// anything is frozen. As long as it has not said so, they are closed.
	ConnectionsProbing ConnectionsState = "Probing"
	// ConnectionsKept: they go along. From the acknowledgement on the old address is a lease.
	ConnectionsKept ConnectionsState = "Kept"
	// ConnectionsClosed: peers have to connect again.
	ConnectionsClosed ConnectionsState = "Closed"
)

// Reasons of ConnectionsStatus, besides those that one side alone knows.
const (
	// Of Kept.
	ReasonProbed = "Probed"
	// Of Closed: what was sent from one sandbox to the other did not come back; a node's kernel
	// lacks what the tunnel is made of; this kind of move cannot hold the old address.
	ReasonNotCarried  = "NetworkDoesNotCarry"
	ReasonUnable      = "NodeUnable"
	ReasonNotLeasable = "AddressNotLeasable"
	// Of the end of a lease: the last connection is gone; the time is over; the sandbox that the
	// address is leased by is gone or another; the new sandbox is gone.
	ReasonLastConnection = "LastConnectionEnded"
	ReasonLeaseOver      = "TimeOver"
	ReasonSourceChanged  = "SourceSandboxChanged"
	ReasonTargetGone     = "TargetSandboxGone"
)

// LeaseMargin is how much longer than status.connections.keepFor the source pod holds the address: what
// is under way when the time is over, and word of the end of a lease, arrive meanwhile.
const LeaseMargin = 10 * time.Second

// ConnectionsStatus is what becomes of the pod's old address. It is absent unless the pod asks
// (annotation drover.dev/keep-connections) when the move is accepted.
//
// While the state is Kept, target.resumed is set and leaseEnded is not, the source pod's sandbox
// has to stay: its address is leased by the pod on the target.
//
// +kubebuilder:validation:XValidation:rule="oldSelf.state == 'Probing' || self.state == oldSelf.state",message="what became of the connections cannot be changed"
// +kubebuilder:validation:XValidation:rule="self.state != 'Kept' || (has(self.newAddress) && size(self.newAddress) > 0 && has(self.oldAddresses) && size(self.oldAddresses) > 0)",message="connections are kept only between known addresses"
// +kubebuilder:validation:XValidation:rule="self.keepFor == oldSelf.keepFor && (has(self.required) && self.required) == (has(oldSelf.required) && oldSelf.required) && has(self.oldAddresses) == has(oldSelf.oldAddresses) && (!has(self.oldAddresses) || self.oldAddresses == oldSelf.oldAddresses)",message="what is asked for the connections cannot be changed"
// +kubebuilder:validation:XValidation:rule="(has(self.earlier) ? self.earlier.map(e, e.uid) : []) == (has(oldSelf.earlier) ? oldSelf.earlier.map(e, e.uid) : [])",message="which addresses of before go along cannot be changed"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.newAddress) || size(oldSelf.newAddress) == 0 || (has(self.newAddress) && self.newAddress == oldSelf.newAddress)",message="the new address of the connections cannot be changed"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.leaseEnded) || !oldSelf.leaseEnded || (has(self.leaseEnded) && self.leaseEnded)",message="that a lease has ended cannot be taken back"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.targetLeft) || !oldSelf.targetLeft || (has(self.targetLeft) && self.targetLeft)",message="that the target has left cannot be taken back"
// +kubebuilder:validation:XValidation:rule="!has(self.targetLeft) || !self.targetLeft || (has(self.leaseEnded) && self.leaseEnded)",message="the target leaves only when the lease has ended"
type ConnectionsStatus struct {
	// State. The controller writes Probing, or Closed where the address could not be leased; the
	// target's agent Kept; either agent Closed.
	State ConnectionsState `json:"state"`
	// Reason is a CamelCase word for the state, Message a sentence: what was tried, and what came of it.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Reason string `json:"reason,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	Message string `json:"message,omitempty"`

	// KeepFor is how long after the acknowledgement the old address is kept at most. From the
	// annotation drover.dev/keep-connections. Controller.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	KeepFor metav1.Duration `json:"keepFor"`
	// Required: a move that would close the connections is aborted before anything is frozen.
	// From the annotation drover.dev/keep-connections-required. Controller.
	// +optional
	Required bool `json:"required,omitempty"`
	// OldAddresses are those of the source pod (status.podIPs), the primary one first. Controller.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:MaxLength=64
	OldAddresses []string `json:"oldAddresses,omitempty"`
	// NewAddress is the other end of the tunnel, the new sandbox's address of the family of the
	// first old one. Target's agent, once: the source answers what is asked from there.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	NewAddress string `json:"newAddress,omitempty"`

	// Earlier are the addresses that the pod had before it came to the source and that are leased to it still:
	// they go along with its present one. Controller, when the move is accepted, but for what the target's
	// agent says of each.
	// +optional
	// +listType=map
	// +listMapKey=uid
	// +kubebuilder:validation:MaxItems=3
	Earlier []EarlierLease `json:"earlier,omitempty"`

	// HolderImage is the image, by digest (NAME@sha256:…), that the source pod's containers are
	// given when its processes have ended: a process that does nothing keeps the sandbox. The
	// fence on the source's node lets it through, and nothing else. Controller, before the
	// source's node is asked to dump.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	HolderImage string `json:"holderImage,omitempty"`
	// Until is when the source pod is let go if nobody has said before that the lease has ended:
	// keepFor and a margin after the controller saw target.resumed, by its clock. Controller.
	// +optional
	Until *metav1.MicroTime `json:"until,omitempty"`

	// LeaseEnded: both ends are to be closed. An agent of either end, or the controller. Set only
	// after target.resumed.
	// +optional
	LeaseEnded bool `json:"leaseEnded,omitempty"`
	// LeaseReason and LeaseMessage say why it ended.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	LeaseReason string `json:"leaseReason,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	LeaseMessage string `json:"leaseMessage,omitempty"`
	// TargetLeft: nothing leaves from the old address by the target's sandbox any more, and nothing
	// ever will. Target's agent, when it has closed that end, or found it gone. Until then the source
	// pod stays, unless the target's node tells another boot ID, or the time is over.
	// +optional
	TargetLeft bool `json:"targetLeft,omitempty"`

	// TurnedTo is the UID of the PodMigration to whose target what comes for the old address is sent on,
	// since the pod has moved again. Source's agent.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=128
	TurnedTo types.UID `json:"turnedTo,omitempty"`
}

// EarlierLease is the lease of an address that the pod had before the move that names it.
//
// +kubebuilder:validation:XValidation:rule="self.migration == oldSelf.migration && self.node == oldSelf.node && self.addresses == oldSelf.addresses && self.keepFor == oldSelf.keepFor",message="which addresses of before go along cannot be changed"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.ended) || !oldSelf.ended || (has(self.ended) && self.ended)",message="that a lease has ended cannot be taken back"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.targetLeft) || !oldSelf.targetLeft || (has(self.targetLeft) && self.targetLeft)",message="that the target has left cannot be taken back"
// +kubebuilder:validation:XValidation:rule="!has(self.targetLeft) || !self.targetLeft || (has(self.ended) && self.ended)",message="the target leaves only when the lease has ended"
type EarlierLease struct {
	// UID and Migration are those of the PodMigration, in the same namespace, whose source pod holds the
	// address.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=128
	UID types.UID `json:"uid"`
	// +kubebuilder:validation:MaxLength=253
	Migration string `json:"migration"`
	// Node is where it is held.
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node"`
	// Addresses are those of the pod there, the primary one first.
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:MaxLength=64
	Addresses []string `json:"addresses"`
	// KeepFor is for how long after the acknowledgement of this move they are kept at most: what was left of
	// their time when the move was accepted.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	KeepFor metav1.Duration `json:"keepFor"`
	// Ended: this lease is to be closed, or is. Target's agent. Set only after target.resumed.
	// +optional
	Ended bool `json:"ended,omitempty"`
	// EndReason and EndMessage say why, where it was found there.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	EndReason string `json:"endReason,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	EndMessage string `json:"endMessage,omitempty"`
	// TargetLeft: nothing leaves from these addresses by the target's sandbox any more. Target's agent.
	// +optional
	TargetLeft bool `json:"targetLeft,omitempty"`
}
