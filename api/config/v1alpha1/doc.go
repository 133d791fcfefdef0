// Package v1alpha1 holds the arguments of Drover's scheduler plugins: types, defaults,
// validation and strict decoding. They stand in the pluginConfig of a
// KubeSchedulerConfiguration; apiVersion and kind may be left out there.
//
// +kubebuilder:object:generate=true
// +groupName=drover.dev
package v1alpha1
