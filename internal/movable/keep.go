package movable

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
)

// MaxKeep is the longest for which an old address can be kept: as long the source's node cannot
// be emptied without closing what still uses it.
const MaxKeep = 24 * time.Hour

// Keep is what a pod asks for its open connections.
type Keep struct {
	// For is how long its old address is kept at most, in whole milliseconds; 0: the pod does not ask.
	For time.Duration
	// Required: rather no move than one that closes them.
	Required bool
}

// KeepOf reads the annotations drover.dev/keep-connections and -required. The error says what is
// wrong with which.
func KeepOf(o metav1.Object) (Keep, error) {
	a := o.GetAnnotations()
	text, asked := a[v1alpha1.AnnotationKeepConnections]
	required, says := a[v1alpha1.AnnotationKeepConnectionsRequired]
	switch {
	case says && required != "true" && required != "false":
		return Keep{}, fmt.Errorf("annotation %s is %q: want \"true\", \"false\" or none", v1alpha1.AnnotationKeepConnectionsRequired, required)
	case !asked && required == "true":
		return Keep{}, fmt.Errorf("annotation %s is \"true\", but %s does not say for how long at most", v1alpha1.AnnotationKeepConnectionsRequired, v1alpha1.AnnotationKeepConnections)
	case !asked:
		return Keep{}, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second || d > MaxKeep {
		return Keep{}, fmt.Errorf("annotation %s is %q: want a duration from 1s to %v, as \"10m\"", v1alpha1.AnnotationKeepConnections, text, MaxKeep)
	}
	return Keep{For: d.Truncate(time.Millisecond), Required: required == "true"}, nil
}
