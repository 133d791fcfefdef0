package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// RouteTimeArgs are the arguments of the plugin RouteTime, which ranks nodes by
//
//	A = (alpha*cores + beta*GiB) / (tau * milliseconds^routeTimeExponent)
//
// +kubebuilder:object:root=true
type RouteTimeArgs struct {
	metav1.TypeMeta `json:",inline"`

	// Alpha is the weight of one idle core, 0 or more. Default 1.
	// +optional
	Alpha *float64 `json:"alpha,omitempty"`
	// Beta is the weight of one idle GiB, 0 or more; not 0 together with alpha. Default 0.25.
	// +optional
	Beta *float64 `json:"beta,omitempty"`
	// Tau is the weight of one millisecond of route time, more than 0. It scales every A
	// alike and changes no order. Default 1.
	// +optional
	Tau *float64 `json:"tau,omitempty"`
	// RouteTimeFloor is the shortest route time that counts, more than 0. Default 200us.
	// +optional
	RouteTimeFloor *metav1.Duration `json:"routeTimeFloor,omitempty"`
	// RouteTimeExponent, 0 to 10, shifts the balance: 0 looks at resources alone, greater
	// values weigh route times more. Default 1, the formula as it stands.
	// +optional
	RouteTimeExponent *float64 `json:"routeTimeExponent,omitempty"`
	// StaleAfter is the age from which a measurement no longer counts, 10s or more, since a node
	// whose load stays says so every 9s. Default 30s.
	// +optional
	StaleAfter *metav1.Duration `json:"staleAfter,omitempty"`
}
