package peers

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
)

// text writes terms so that they can be compared.
func text(terms []Term) (s []string) {
	for _, t := range terms {
		s = append(s, fmt.Sprint(t.Selector, " ", t.Weight))
	}
	return s
}

func TestParse(t *testing.T) {
	for in, want := range map[string][]string{
		"":                                  nil,
		"app=db":                            {"app=db 1"},
		"app=db,app=cache:3":                {"app=db 1", "app=cache 3"},
		" app=db , app=cache:0.5":           {"app=db 1", "app=cache 0.5"},
		"app.kubernetes.io/name=db:1000000": {"app.kubernetes.io/name=db 1e+06"},
	} {
		got, err := Parse(in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
		}
		if diff := cmp.Diff(want, text(got)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", in, diff)
		}
	}
}

func TestParseRefusesInOneLine(t *testing.T) {
	for in, want := range map[string]string{
		" ":                                `term "": want key=value or key=value:weight`,
		",":                                `term "": want key=value`,
		"app=db,":                          `term "": want key=value`,
		"db":                               `term "db": want key=value`,
		"=db":                              `term "=db": want key=value`,
		"app=":                             `term "app=": want key=value`,
		"app==db":                          `the label value "=db" is not valid`,
		"app=db;app=x":                     `the label value "db;app=x" is not valid`,
		"app in (a)":                       `want key=value`,
		"a b=c":                            `the label key "a b" is not valid`,
		"app=db:":                          `the weight "" must be a number`,
		"app=db:0":                         `the weight "0" must be a number more than 0`,
		"app=db:-1":                        `the weight "-1" must be`,
		"app=db:NaN":                       `the weight "NaN" must be`,
		"app=db:Inf":                       `the weight "Inf" must be`,
		"app=db:1e3":                       `the weight "1e3" must be`,
		"app=db:0x10":                      `the weight "0x10" must be`,
		"app=db:1_000":                     `the weight "1_000" must be`,
		"app=db:1000001":                   `at most 1000000`,
		"app=db:1:2":                       `the weight "1:2" must be`,
		"app=db,app=db:2":                  `app=db stands there twice, with the weights 1 and 2: leave one`,
		"app=db\napp=x":                    `is not valid`,
		strings.Repeat("a=b,", 40):         `41 terms, at most 32`,
		"app=" + strings.Repeat("x", 9999): `...`,
	} {
		got, err := Parse(in)
		if err == nil {
			t.Errorf("%q: no error, got %v", in, got)
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 500 {
			t.Errorf("%q: error %q, want one short line with %q", in, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"app=db,app=cache:3", "a=b:0.5", ",", "a=b:..", "a=b:9999999999999999999999", "a=b,a=b:2", "a=b,A=b,a=B"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		terms, err := Parse(s)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("more than one line: %q", err)
			}
			return
		}
		seen := map[string]bool{}
		for _, term := range terms {
			if seen[term.Selector.String()] {
				t.Fatalf("%q gives %v: one selector twice", s, text(terms))
			}
			seen[term.Selector.String()] = true
			if !(term.Weight > 0) || term.Weight > maxWeight || term.Selector.Empty() {
				t.Fatalf("%q gives %v", s, text(terms))
			}
		}
	})
}

func pod(uid, node string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p" + uid, UID: types.UID(uid), Annotations: map[string]string{}},
		Spec:       corev1.PodSpec{NodeName: node},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

func TestNodes(t *testing.T) {
	db := []*corev1.Pod{
		pod("1", "n1"), pod("2", "n2"),
		pod("3", ""), // not placed yet
		pod("4", "n3", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
		pod("5", "n3", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }),
		pod("6", "n3", func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }),
		pod("me", "n3"), // itself
		pod("8", "n3", func(p *corev1.Pod) { p.Annotations[v1alpha1.AnnotationOrigin] = "me" }),
	}
	cache := []*corev1.Pod{pod("9", "n2"), pod("10", "n2")}
	list := func(s labels.Selector) ([]*corev1.Pod, error) {
		switch s.String() {
		case "app=db":
			return db, nil
		case "app=cache":
			return cache, nil
		case "app=none":
			return nil, nil
		}
		return nil, errors.New("refused")
	}
	me := pod("me", "")
	// db: 1 shared by two pods; cache: 3 shared by two on one node.
	want := map[model.NodeID]float64{"n1": 0.5, "n2": 0.5 + 3}
	// A replacement of the pod is the pod.
	moved := pod("other", "", func(p *corev1.Pod) { p.Annotations[v1alpha1.AnnotationOrigin] = "me" })
	for _, p := range []*corev1.Pod{me, moved} {
		terms, err := Parse("app=db,app=cache:3,app=none:9")
		if err != nil {
			t.Fatal(err)
		}
		got, err := Nodes(p, terms, list)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	terms, _ := Parse("app=error")
	if _, err := Nodes(me, terms, list); err == nil || !strings.Contains(err.Error(), "app=error") {
		t.Errorf("error %v, want one that names the term", err)
	}
}
