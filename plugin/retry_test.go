package plugin

import (
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
)

// agent says in a new picture whether n2's agent answers.
func (b *bench) agent(answers bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.picture.Nodes["n2"]
	n.Alive = answers
	b.picture.Nodes = maps.Clone(b.picture.Nodes)
	b.picture.Nodes["n2"] = n
	b.now = b.now.Add(reuse)
}

// remembered is of how many pods a refusal is.
func (b *bench) remembered() int {
	b.plugin.refused.mu.Lock()
	defer b.plugin.refused.mu.Unlock()
	return len(b.plugin.refused.pods)
}

// A replacement that was kept off a node whose agent did not answer is tried again as soon
// as the agent does: the API server has no event of that. One that has found a node is not.
func TestReplacementIsTriedAgainWhenThePictureMends(t *testing.T) {
	b := newBench()
	b.agent(false)
	waits, bound := replacement("waits", "n1"), replacement("bound", "n1")
	found := bound.DeepCopy()
	on("n3")(found)
	b.start(t, "", waits, found)
	for _, p := range []*corev1.Pod{waits, bound} {
		if got := b.filter(t, p)["n2"]; got == "" {
			t.Fatalf("%s was let on the node of a dead agent", p.Name)
		}
	}
	b.agent(true)
	if name := <-b.activated; name != "ns/waits" {
		t.Errorf("%s was activated, want ns/waits", name)
	}
	if n := b.remembered(); n != 1 {
		t.Errorf("refusals of %d pods are remembered, want only that of the one that waits", n)
	}
	if got := b.filter(t, waits)["n2"]; got != "" {
		t.Errorf("refused: %s", got)
	}
	if n := b.remembered(); n != 0 {
		t.Errorf("refusals of %d pods are remembered, want none", n)
	}
}

// Nothing is tried again in vain.
func TestReplacementWaitsWhileThePictureIsBad(t *testing.T) {
	b := newBench()
	b.agent(false)
	p := replacement("p", "n1")
	b.start(t, "", p)
	b.filter(t, p)
	b.plugin.activate(klog.Background())
	if n := len(b.activated); n != 0 {
		t.Errorf("activated %d times, and the agent is still dead", n)
	}
}
