package v1alpha1

// Annotations, labels and names that users and Drover's programs set on objects.
const (
	// RuntimeClassName is the RuntimeClass whose handler is drover-runc.
	RuntimeClassName = "drover"
	// SchedulerName is the profile with RouteTime.
	SchedulerName = "drover-scheduler"

	// AnnotationMigrate ("true") opts a pod in to being moved.
	AnnotationMigrate = "drover.dev/migrate"
	// AnnotationPeers names a pod's peers: "app=db,app=cache:3".
	AnnotationPeers = "drover.dev/peers"

	// AnnotationMigration is set on a replacement: the name of its PodMigration.
	AnnotationMigration = "drover.dev/migration"
	// AnnotationMigratingFrom is set on a replacement: the node it comes from.
	AnnotationMigratingFrom = "drover.dev/migrating-from"
	// AnnotationEpoch is the greatest epoch ever given out for a pod or its lineage.
	AnnotationEpoch = "drover.dev/epoch"
	// AnnotationOrigin is the UID of the first pod of a lineage; absent on that first pod.
	AnnotationOrigin = "drover.dev/origin"
	// LabelReplacement marks a replacement until it is handed to its owner: the UID of the PodMigration.
	LabelReplacement = "drover.dev/replacement"

	// PauseConfigMap, in Drover's namespace: data["paused"]="true" stops all new moves.
	PauseConfigMap = "drover-pause"
)
