package controller

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/record"

	"github.com/drover-project/drover/api/v1alpha1"
)

func TestPinned(t *testing.T) {
	const d = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, c := range []struct {
		image, id string
		want      string
		why       string // part of it; empty: pinned
	}{
		{"web:1", "docker.io/library/web" + d, "web" + d, ""},
		{"web", "docker.io/library/web" + d, "web" + d, ""},
		{"team/web:1", "docker.io/team/web" + d, "team/web" + d, ""},
		{"index.docker.io/team/web:1", "docker.io/team/web" + d, "index.docker.io/team/web" + d, ""},
		{"host:5000/web:1", "host:5000/web" + d, "host:5000/web" + d, ""},
		{"host:5000/web", "host:5000/web" + d, "host:5000/web" + d, ""},
		{"localhost/web:1", "localhost/web" + d, "localhost/web" + d, ""},
		{"web:1", "docker-pullable://web" + d, "web" + d, ""},
		{"web" + d, "sha256:ffff", "web" + d, ""},
		{"web:1" + d, "docker.io/library/web" + d, "web:1" + d, ""},
		{"web:1", "sha256:ffff", "web:1", "no digest in a registry"},
		{"web:1", "", "web:1", "no digest in a registry"},
		{"host/web:1", "docker.io/other/web" + d, "host/web:1", "in another repository"},
		{"host.example/web:1", "docker.io/library/web" + d, "host.example/web:1", "in another repository"},
	} {
		got, why := pinned(c.image, c.id)
		if got != c.want || (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
			t.Errorf("pinned(%q, %q) = %q, %q, want %q, %q", c.image, c.id, got, why, c.want, c.why)
		}
	}
}

func TestPinImages(t *testing.T) {
	source := sourcePod()
	source.Status.ContainerStatuses[0].ImageID = "docker.io/library/web@sha256:d1"
	spec := source.Spec.DeepCopy()
	spec.Containers = append(spec.Containers, corev1.Container{Name: "log", Image: "log:1"})
	why := pinImages(spec, source)
	if spec.Containers[0].Image != "web@sha256:d1" || spec.Containers[1].Image != "log:1" || len(why) != 1 || !strings.Contains(why[0], "log") {
		t.Errorf("images %q, %q, unpinned %q", spec.Containers[0].Image, spec.Containers[1].Image, why)
	}
	if source.Spec.Containers[0].Image != "web:1" {
		t.Error("the source was changed")
	}
}

// An image that could not be pinned and turns out to be another is told once, and no more.
func TestAnotherImageIsTold(t *testing.T) {
	for _, c := range []struct {
		name, was, is string
		pinned, told  bool
	}{
		{"the same", "sha256:a", "sha256:a", false, false},
		{"another", "sha256:a", "sha256:b", false, true},
		{"not known yet", "sha256:a", "", false, false},
		{"an ID and a digest", "sha256:a", "web@sha256:b", false, false},
		{"pinned", "web@sha256:a", "web@sha256:b", true, false},
	} {
		m, f := preparing()
		w := newWorld(t, m)
		m = w.move()
		setCondition(m, start, v1alpha1.ConditionImagesPinned, c.pinned, "Word", "")
		events := record.NewFakeRecorder(9)
		w.r.Events = events
		source, p := sourcePod(), f.Replacement
		source.Status.ContainerStatuses[0].ImageID, p.Status.ContainerStatuses[0].ImageID = c.was, c.is
		for range 2 {
			if err := w.r.noticeImages(t.Context(), m, f, p, source); err != nil {
				t.Fatal(err)
			}
		}
		told := meta.FindStatusCondition(w.move().Status.Conditions, v1alpha1.ConditionImagesPinned) != nil
		if told != c.told || told && len(events.Events) != 2 { // on the move and on the pod
			t.Errorf("%s: told %t with %d events, want %t", c.name, told, len(events.Events), c.told)
		}
	}
}

func TestOtherImagesOfSidecars(t *testing.T) {
	source, p := sourcePod(), sourcePod()
	source.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "proxy", ImageID: "sha256:a"}}
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "proxy", ImageID: "sha256:b"}}
	want := "container proxy runs image sha256:b, was sha256:a"
	if got := otherImages(p, source); len(got) != 1 || got[0] != want {
		t.Errorf("%q, want %q alone", got, want)
	}
}
