package v1alpha1

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func unknown(raw string) runtime.Object { return &runtime.Unknown{Raw: []byte(raw)} }

func defaults() *RouteTimeArgs {
	a := &RouteTimeArgs{}
	a.SetDefaults()
	return a
}

func TestDecodeRouteTimeArgs(t *testing.T) {
	with := func(change func(*RouteTimeArgs)) *RouteTimeArgs {
		a := defaults()
		change(a)
		return a
	}
	zero, two := 0.0, 2.0
	for _, tt := range []struct {
		name string
		in   runtime.Object
		want *RouteTimeArgs
	}{
		{"nothing", nil, defaults()},
		{"empty", unknown(``), defaults()},
		{"an empty object", unknown(`{}`), defaults()},
		{"a typed object", &RouteTimeArgs{Alpha: &two}, with(func(a *RouteTimeArgs) { a.Alpha = &two })},
		{"zero is a value", unknown(`{"alpha":0,"routeTimeExponent":0}`), with(func(a *RouteTimeArgs) { a.Alpha, a.RouteTimeExponent = &zero, &zero })},
		{
			"named type and all fields",
			unknown(`{"apiVersion":"drover.dev/v1alpha1","kind":"RouteTimeArgs","alpha":2,"beta":2,"tau":2,"routeTimeFloor":"2ms","routeTimeExponent":2,"staleAfter":"20s"}`),
			&RouteTimeArgs{
				TypeMeta: metav1.TypeMeta{APIVersion: "drover.dev/v1alpha1", Kind: "RouteTimeArgs"},
				Alpha:    &two, Beta: &two, Tau: &two, RouteTimeExponent: &two,
				RouteTimeFloor: &metav1.Duration{Duration: 2 * time.Millisecond},
				StaleAfter:     &metav1.Duration{Duration: 20 * time.Second},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := DecodeRouteTimeArgs(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if got.Kind == "" {
				got.TypeMeta = tt.want.TypeMeta
			}
			if tt.want.Kind == "" {
				got.TypeMeta = metav1.TypeMeta{}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestBadArgsGetOneClearLine(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"unknown field", `{"alfa":1}`, `unknown field "alfa"`},
		{"twice", `{"alpha":1,"alpha":2}`, `duplicate field "alpha"`},
		{"wrong type", `{"alpha":"much"}`, `alpha`},
		{"wrong duration", `{"staleAfter":"soon"}`, `soon`},
		{"no JSON", `{`, `decode the arguments of RouteTime`},
		{"a list", `[1]`, `decode the arguments of RouteTime`},
		{"other kind", `{"apiVersion":"drover.dev/v1alpha1","kind":"PodMigration"}`, `want drover.dev/v1alpha1, Kind=RouteTimeArgs`},
		{"other version", `{"apiVersion":"drover.dev/v9","kind":"RouteTimeArgs"}`, `want drover.dev/v1alpha1, Kind=RouteTimeArgs`},
		{"negative alpha", `{"alpha":-1}`, `RouteTimeArgs.alpha: Invalid value: -1: must be 0 or more`},
		{"negative beta", `{"beta":-0.5}`, `RouteTimeArgs.beta: Invalid value: -0.5: must be 0 or more`},
		{"no weight at all", `{"alpha":0,"beta":0}`, `RouteTimeArgs.beta: Invalid value: 0: must be more than 0 when alpha is 0`},
		{"tau 0", `{"tau":0}`, `RouteTimeArgs.tau: Invalid value: 0: must be more than 0`},
		{"great exponent", `{"routeTimeExponent":11}`, `RouteTimeArgs.routeTimeExponent: Invalid value: 11: must be between 0 and 10`},
		{"no floor", `{"routeTimeFloor":"0s"}`, `RouteTimeArgs.routeTimeFloor: Invalid value: "0s": must be more than 0s`},
		{"stale at once", `{"staleAfter":"9.9s"}`, `RouteTimeArgs.staleAfter: Invalid value: "9.9s": must be 10s or more`},
		{"several", `{"tau":-1,"alpha":-1}`, `RouteTimeArgs.tau`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := DecodeRouteTimeArgs(unknown(tt.in))
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want one line with %q", err, tt.want)
			}
			t.Log(err)
		})
	}
	if _, err := DecodeRouteTimeArgs(&runtime.Unknown{Raw: []byte("alpha: 1")}); err != nil {
		t.Errorf("YAML: %v", err)
	}
	if _, err := DecodeRouteTimeArgs(&metav1.Status{}); err == nil {
		t.Error("an object of another type must be refused")
	}
}

func FuzzDecodeRouteTimeArgs(f *testing.F) {
	for _, s := range []string{`{}`, `{"alpha":1}`, `{"staleAfter":"30s"}`, `{"alpha":1e400}`, `alpha: .nan`, `null`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		args, err := DecodeRouteTimeArgs(&runtime.Unknown{Raw: raw})
		if (args == nil) != (err != nil) {
			t.Fatalf("args %v, error %v", args, err)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\r\n") {
			t.Fatalf("more than one line: %q", err)
		}
		if err == nil && len(args.Validate(nil)) > 0 {
			t.Fatalf("decoded but not valid: %+v", args)
		}
	})
}
