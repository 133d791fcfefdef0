package v1alpha1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SetDefaults fills in what was left out.
func (a *RouteTimeArgs) SetDefaults() {
	fill(&a.Alpha, 1)
	fill(&a.Beta, 0.25)
	fill(&a.Tau, 1)
	fill(&a.RouteTimeFloor, metav1.Duration{Duration: 200 * time.Microsecond})
	fill(&a.RouteTimeExponent, 1)
	fill(&a.StaleAfter, metav1.Duration{Duration: 30 * time.Second})
}

func fill[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}
