package movable

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestKeepOf(t *testing.T) {
	const keep, required = "drover.dev/keep-connections", "drover.dev/keep-connections-required"
	for name, c := range map[string]struct {
		annotations map[string]string
		want        Keep
		wrong       string // a part of the error
	}{
		"not asked":             {nil, Keep{}, ""},
		"ten minutes":           {map[string]string{keep: "10m"}, Keep{For: 10 * time.Minute}, ""},
		"required":              {map[string]string{keep: "1h30m", required: "true"}, Keep{For: 90 * time.Minute, Required: true}, ""},
		"said not to be":        {map[string]string{keep: "1s", required: "false"}, Keep{For: time.Second}, ""},
		"less than a ms":        {map[string]string{keep: "600.0009999s"}, Keep{For: 10 * time.Minute}, ""},
		"the longest":           {map[string]string{keep: "24h"}, Keep{For: 24 * time.Hour}, ""},
		"longer":                {map[string]string{keep: "24h1s"}, Keep{}, `"24h1s": want a duration from 1s to 24h0m0s`},
		"shorter":               {map[string]string{keep: "999ms"}, Keep{}, "want a duration"},
		"none at all":           {map[string]string{keep: "0s"}, Keep{}, "want a duration"},
		"negative":              {map[string]string{keep: "-10m"}, Keep{}, "want a duration"},
		"a number":              {map[string]string{keep: "600"}, Keep{}, `"600"`},
		"empty":                 {map[string]string{keep: ""}, Keep{}, "want a duration"},
		"required, no duration": {map[string]string{required: "true"}, Keep{}, "does not say for how long"},
		"not required, alone":   {map[string]string{required: "false"}, Keep{}, ""},
		"required, misspelt":    {map[string]string{keep: "10m", required: "yes"}, Keep{}, `"yes"`},
	} {
		got, err := KeepOf(&metav1.ObjectMeta{Annotations: c.annotations})
		if got != c.want || (err != nil) != (c.wrong != "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: got %+v, %v; want %+v, %q", name, got, err, c.want, c.wrong)
		}
	}
}
