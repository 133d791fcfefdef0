package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// BudgetReservation is the entry that a move has in the status of the PodDisruptionBudget
// of its source, under the name of the source pod.
type BudgetReservation struct {
	// Name and UID of the PodDisruptionBudget.
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=128
	UID types.UID `json:"uid,omitempty"`
	// ReservedAt is the entry's value, by which this move knows its own. It is written here
	// first, so an entry of an older value may be there instead.
	ReservedAt metav1.Time `json:"reservedAt"`
}
