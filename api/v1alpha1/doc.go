// Package v1alpha1 holds the types of the drover.dev/v1alpha1 API. No behaviour.
//
// +kubebuilder:object:generate=true
// +groupName=drover.dev
package v1alpha1
