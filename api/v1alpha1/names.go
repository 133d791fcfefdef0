package v1alpha1

import (
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Annotations, labels and names that users and Drover's programs set on objects.
const (
	// RuntimeClassName is the RuntimeClass whose handler is drover-runc.
	RuntimeClassName = "drover"
	// SchedulerName is the profile with RouteTime.
	SchedulerName = "drover-scheduler"

	// AnnotationMigrate ("true") opts a pod in to being moved.
	AnnotationMigrate = "drover.dev/migrate"
	// AnnotationKeepName ("true") gives a pod without owner its own name back after a move;
	// pods of StatefulSets always keep theirs.
	AnnotationKeepName = "drover.dev/keep-name"
	// AnnotationPeers names a pod's peers: "app=db,app=cache:3".
	AnnotationPeers = "drover.dev/peers"
	// AnnotationLogPattern is a regular expression (RE2): the agent counts the lines of the pod's
	// logs that match. With "." and a container's name appended it is for that one, and empty for none.
	AnnotationLogPattern = "drover.dev/log-pattern"
	// AnnotationOnRestoreFailure ("restart") asks that a pod without controller is started anew,
	// empty, if a move has lost its memory on both nodes. Nobody asks: it is not.
	AnnotationOnRestoreFailure = "drover.dev/on-restore-failure"
	// OnRestoreFailureRestart is its only value.
	OnRestoreFailureRestart = "restart"
	// AnnotationKeepConnections asks that the pod takes its address and its open connections along:
	// a duration ("10m"), for which at most the old address is kept. Package movable reads it.
	AnnotationKeepConnections = "drover.dev/keep-connections"
	// AnnotationKeepConnectionsRequired ("true") asks that a move is aborted, before anything is
	// frozen, that would close them.
	AnnotationKeepConnectionsRequired = "drover.dev/keep-connections-required"
	// AnnotationStartedCold is set on a pod that was started so: the UID of the PodMigration.
	AnnotationStartedCold = "drover.dev/started-cold"

	// AnnotationMigration is set on a replacement: the name of its PodMigration.
	AnnotationMigration = "drover.dev/migration"
	// AnnotationMigratingFrom is set on a replacement: the node it comes from.
	AnnotationMigratingFrom = "drover.dev/migrating-from"
	// AnnotationEpoch is the greatest epoch ever given out for a pod or its lineage.
	AnnotationEpoch = "drover.dev/epoch"
	// AnnotationOrigin is the UID of the first pod of a lineage; absent on that first pod.
	AnnotationOrigin = "drover.dev/origin"
	// AnnotationMoving is set on a source pod while a PodMigration moves it: "NAME/UID" of
	// that PodMigration. It is set together with the epoch by compare-and-swap, so that two
	// PodMigrations never move one pod; one that is finished or gone no longer counts.
	AnnotationMoving = "drover.dev/moving"
	// AnnotationPinned is set on a replacement: the node requirement that was added to its
	// affinity for the move, "In=NODE" or "NotIn=NODE"; the next move takes it out again.
	AnnotationPinned = "drover.dev/pinned"
	// AnnotationHandOver is set on a replacement: the labels, owner and deletion cost (JSON)
	// that it gets when it is handed to its owner, in case the source is gone by then.
	AnnotationHandOver = "drover.dev/hand-over"

	// AnnotationOrderedBy is set on a PodMigration by the agent that orders it: its node. An
	// agent orders moves of its own node's pods alone.
	AnnotationOrderedBy = "drover.dev/ordered-by"
	// AnnotationUses is set with it: what the pod uses (a ResourceList in JSON). Whoever looks
	// for a target meanwhile counts it as if it were there.
	AnnotationUses = "drover.dev/uses"

	// Finalizer keeps a PodMigration until both pods are settled.
	Finalizer = "drover.dev/handoff"

	// LabelReplacement marks a replacement until it is handed to its owner: the UID of the PodMigration.
	LabelReplacement = "drover.dev/replacement"

	// LabelLease marks a source pod that has been taken out of its owner's hands and out of every
	// Service, and is kept for its address alone: the UID of the PodMigration whose lease that is.
	LabelLease = "drover.dev/lease"

	// PauseConfigMap, in Drover's namespace: data["paused"]="true" stops all new moves.
	PauseConfigMap = "drover-pause"
	// HoldsConfigMap, in Drover's namespace: what must not be created while a pod changes hands.
	HoldsConfigMap = "drover-holds"
)

// MoveName names a PodMigration of a pod: the beginning of its name, and a suffix of the
// caller's that makes it unique.
func MoveName(pod, suffix string) string {
	return strings.TrimRight(pod[:min(len(pod), 50)], "-.") + "-" + suffix
}

// Finished tells whether nothing is left to do for a PodMigration, however it ended. The
// controller alone writes that condition; the phase is written by agents, too.
func Finished(m *PodMigration) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, ConditionComplete)
}

// SourceKept tells that the source's processes may be ended only once the status says adopted: for its owner's
// sake, or because its address is leased, so that its Services have the pod until they have the replacement. They
// have that at the latest when the move is handed over: a drover-controller that knows no source that is kept for
// its address says that alone.
func SourceKept(s *PodMigrationStatus) bool {
	c := s.Connections
	return s.Source.KeepUntilAdopted || c != nil && c.State == ConnectionsKept && !c.LeaseEnded && !s.HandedOver
}

// OriginOf is the UID of the first pod of the lineage that a pod belongs to: a replacement
// and the pod that it takes over from are one.
func OriginOf(pod metav1.Object) string {
	if o := pod.GetAnnotations()[AnnotationOrigin]; o != "" {
		return o
	}
	return string(pod.GetUID())
}
