package v1alpha1

import (
	"math"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// MaxRouteTimeExponent is the greatest routeTimeExponent.
const MaxRouteTimeExponent = 10

// Validate checks arguments whose defaults are set. Each error names the field, its value
// and what would be right.
func (a *RouteTimeArgs) Validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	bad := func(name string, value any, want string) {
		errs = append(errs, field.Invalid(path.Child(name), value, want))
	}
	alpha, beta, tau, exponent := *a.Alpha, *a.Beta, *a.Tau, *a.RouteTimeExponent
	if !(alpha >= 0) || math.IsInf(alpha, 0) {
		bad("alpha", alpha, "must be 0 or more")
	}
	if !(beta >= 0) || math.IsInf(beta, 0) {
		bad("beta", beta, "must be 0 or more")
	}
	if alpha == 0 && beta == 0 {
		bad("beta", beta, "must be more than 0 when alpha is 0")
	}
	if !(tau > 0) || math.IsInf(tau, 0) {
		bad("tau", tau, "must be more than 0")
	}
	if !(exponent >= 0 && exponent <= MaxRouteTimeExponent) {
		bad("routeTimeExponent", exponent, "must be between 0 and 10")
	}
	if d := a.RouteTimeFloor.Duration; d <= 0 {
		bad("routeTimeFloor", d.String(), "must be more than 0s")
	}
	if d := a.StaleAfter.Duration; d < 10*time.Second {
		bad("staleAfter", d.String(), "must be 10s or more: a load that stays is told every 9s")
	}
	return errs
}
