package v1alpha1

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// codecs decode strictly: a field that does not exist is an error, not a default.
var codecs = func() serializer.CodecFactory {
	s := runtime.NewScheme()
	utilruntime.Must(AddToScheme(s))
	return serializer.NewCodecFactory(s, serializer.EnableStrict)
}()

// DecodeRouteTimeArgs reads what kube-scheduler hands to the plugin's factory: nothing, a
// *runtime.Unknown (kube-scheduler's own scheme decodes arguments of its own group alone
// and leaves all others as they are), or a *RouteTimeArgs from a program that made one.
// The arguments have their defaults and are valid; the error is one line.
func DecodeRouteTimeArgs(obj runtime.Object) (*RouteTimeArgs, error) {
	args := &RouteTimeArgs{}
	switch o := obj.(type) {
	case nil:
	case *RouteTimeArgs:
		args = o.DeepCopy()
	case *runtime.Unknown:
		if err := args.decode(o.Raw); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("the arguments of RouteTime are a %T, want a RouteTimeArgs", obj)
	}
	args.SetDefaults()
	if err := args.Validate(field.NewPath("RouteTimeArgs")).ToAggregate(); err != nil {
		return nil, oneLine(err)
	}
	return args, nil
}

// decode reads JSON or YAML.
func (a *RouteTimeArgs) decode(raw []byte) error {
	if len(raw) == 0 {
		return nil
	}
	want := GroupVersion.WithKind("RouteTimeArgs")
	_, got, err := codecs.UniversalDeserializer().Decode(raw, &want, a)
	if got != nil && *got != want {
		return fmt.Errorf("the arguments of RouteTime are a %s, want %s, or apiVersion and kind left out", got, want)
	}
	if err != nil {
		return oneLine(fmt.Errorf("decode the arguments of RouteTime: %w", err))
	}
	return nil
}

// oneLine keeps errors readable in logs and conditions.
func oneLine(err error) error {
	if text := err.Error(); strings.ContainsAny(text, "\r\n") {
		return fmt.Errorf("%s", strings.Join(strings.Fields(text), " "))
	}
	return err
}
