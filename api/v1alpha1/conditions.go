package v1alpha1

// Condition types of a PodMigration that tell what its replacement is.
const (
	// ConditionBudgetReserved: the pod's PodDisruptionBudget counts the pod as disrupted for
	// the move. False: it allows no disruption now, and the move waits. Absent: no budget
	// selects the pod.
	ConditionBudgetReserved = "BudgetReserved"
	// ConditionImagesPinned: the replacement names its images by the digests that the source
	// runs. False: some keep their tags, or the replacement was seen to run another image.
	ConditionImagesPinned = "ImagesPinned"
	// ConditionSpecKept: admission changed nothing of the replacement by which the process
	// would be another. The message lists what it did change. Absent: nothing.
	ConditionSpecKept = "SpecKept"
	// ConditionAddressLeased: the source pod is kept for its address, which the pod on the target
	// has; the message says until when at most. False: the lease has ended, and why. Absent: the
	// pod has not moved with its connections.
	ConditionAddressLeased = "AddressLeased"
	// ConditionStartedCold: the memory was lost on both sides, and the pod was started anew,
	// empty, because its annotation drover.dev/on-restore-failure asks for that. False: it
	// could not be.
	ConditionStartedCold = "StartedCold"
)
