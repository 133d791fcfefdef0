package decision

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
)

// packed is it as it is kept.
func packed(d *Decision) *Packed { return pack(d, columns{}) }

// of is a decision about a pod among so many nodes, each with two reasons.
func of(name string, nodes int) *Decision {
	d := &Decision{Namespace: "ns", Name: name, UID: "uid-" + name, Plugins: []string{"RouteTime"}, Nodes: make([]Node, nodes), Winner: "n0"}
	for i := range d.Nodes {
		d.Nodes[i] = Node{Score: placement.Score{
			Node: model.NodeID(fmt.Sprint("n", i)), A: float64(nodes - i), Known: true,
			Reasons: []placement.Reason{{Kind: placement.KindFull}, {Kind: placement.KindBadLoad, Text: strings.Repeat("x", 40)}},
		}, Said: []int64{int64(i)}}
	}
	return d
}

// names are the pods that are kept, the oldest first.
func (l *Log) names() (names []string) {
	for _, d := range l.kept {
		names = append(names, d.Name)
	}
	return names
}

func TestLogIsBoundedInNumberAndBytes(t *testing.T) {
	one := model.Bytes(packed(of("a", 10)).size())
	for _, tt := range []struct {
		name  string
		count int
		bytes model.Bytes
		want  []string
	}{
		{"room for all", 4, 4 * one, []string{"a", "b", "c", "d"}},
		{"number", 2, 4 * one, []string{"c", "d"}},
		{"bytes", 4, 3*one - 1, []string{"c", "d"}},
		{"exactly", 4, 3 * one, []string{"b", "c", "d"}},
		{"none fits", 4, one - 1, nil},
		{"none is wanted", 0, 4 * one, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := NewLog(tt.count, tt.bytes)
			for _, name := range []string{"a", "b", "c", "d"} {
				l.Add(packed(of(name, 10)))
				if model.Bytes(l.used) > tt.bytes || len(l.kept) > tt.count {
					t.Fatalf("%d decisions of %d bytes are kept", len(l.kept), l.used)
				}
			}
			if diff := cmp.Diff(tt.want, l.names()); diff != "" {
				t.Errorf("kept (-want +got):\n%s", diff)
			}
		})
	}
}

// A large one makes room for itself, one that is too large throws out nothing.
func TestLargeDecisions(t *testing.T) {
	one := model.Bytes(packed(of("a", 10)).size())
	l := NewLog(100, 5*one)
	for _, name := range []string{"a", "b", "c", "d"} {
		l.Add(packed(of(name, 10)))
	}
	sized := func(name string, more model.Bytes) *Packed {
		for n := 10; ; n++ {
			if p := packed(of(name, n)); model.Bytes(p.size()) > more {
				return p
			}
		}
	}
	l.Add(sized("too large", 5*one))
	l.Add(sized("large", 2*one))
	if diff := cmp.Diff([]string{"c", "d", "large"}, l.names()); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	sum := 0
	for _, d := range l.kept {
		sum += d.size()
	}
	if l.used != sum {
		t.Errorf("%d bytes are said to be used, it is %d", l.used, sum)
	}
}

// What the log reckons with is no less than what the garbage collector counts.
func TestSizeIsWhatItTakes(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const decisions = 200
	before, kept, reckoned := heap(), make([]*Packed, decisions), 0
	for i := range kept {
		kept[i] = packed(of("a", 100))
		reckoned += kept[i].size()
	}
	took := int(heap() - before)
	runtime.KeepAlive(kept)
	// The allocator rounds every piece up to the next size class, by an eighth at most.
	if took > reckoned*9/8 {
		t.Errorf("%d decisions take %d bytes, reckoned were %d", decisions, took, reckoned)
	}
}

func TestOfListsTheNewestFirst(t *testing.T) {
	l := NewLog(10, model.GiB)
	for i, name := range []string{"a", "b", "a"} {
		d := of(name, 1)
		d.UID = fmt.Sprint(i)
		l.Add(packed(d))
	}
	other := of("a", 1)
	other.Namespace = "other"
	l.Add(packed(other))
	var got []string
	for _, d := range l.Of("ns", "a") {
		got = append(got, d.UID)
	}
	if diff := cmp.Diff([]string{"2", "0"}, got); diff != "" {
		t.Errorf("UIDs (-want +got):\n%s", diff)
	}
	if none := l.Of("ns", "c"); none == nil || len(none) != 0 {
		t.Errorf("of a pod that is not known: %v, want an empty list", none)
	}
}

func TestChosenAndBest(t *testing.T) {
	d := of("a", 3)
	d.Nodes[0].Known = false
	d.Winner = "n2"
	if c, b := d.Chosen(), d.Best(); c == nil || c.Node != "n2" || b == nil || b.Node != "n1" {
		t.Errorf("chosen %v, best %v; want n2 and n1", c, b)
	}
	d.Winner, d.Nodes = "n9", d.Nodes[:1]
	if c, b := d.Chosen(), d.Best(); c != nil || b != nil {
		t.Errorf("chosen %v, best %v; want none", c, b)
	}
}

// It is read back as it was told; a reason keeps its sentence.
func TestDecisionTravelsAsJSON(t *testing.T) {
	d := of("a", 2)
	d.Bound = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	d.Nodes[1].Age = NotHeard
	raw, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	got := &Decision{}
	if err := json.Unmarshal(raw, got); err != nil {
		t.Fatal(err)
	}
	sentence := cmp.Transformer("sentence", func(r placement.Reason) string { return r.String() })
	if diff := cmp.Diff(d, got, sentence); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What is kept is what was decided, to the last bit.
func TestPackedIsWhatItWas(t *testing.T) {
	same := func(nodes []Node) bool {
		d := of("a", 0)
		d.Nodes = nodes
		d.Peers = map[model.NodeID]float64{"n": 1}
		if len(nodes) > 0 {
			d.Winner = nodes[0].Node
		}
		p := packed(d)
		got := p.Unpack()
		diff := cmp.Diff(d, got, cmpopts.EquateEmpty()) + cmp.Diff(d.Chosen(), p.Chosen, cmpopts.EquateEmpty()) + cmp.Diff(d.Best(), p.Best, cmpopts.EquateEmpty())
		if diff != "" {
			t.Logf("%d nodes (-want +got):\n%s", len(nodes), diff)
		}
		return diff == ""
	}
	if err := quick.Check(same, nil); err != nil {
		t.Error(err)
	}
}

// Nothing of what is kept, or read, is shared with what came in, or is told.
func TestPackedIsInMemoryOfItsOwn(t *testing.T) {
	d := of("a", 3)
	p := packed(d)
	want := p.Unpack()
	d.Plugins[0] = "x"
	for i := range d.Nodes {
		d.Nodes[i].Said[0], d.Nodes[i].Reasons[0].Text = 99, "x"
	}
	told := p.Unpack()
	told.Plugins[0], told.Nodes[1].Said[0], told.Nodes[1].Reasons[0].Text = "y", 99, "y"
	if diff := cmp.Diff(want, p.Unpack()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if p.Chosen.Said[0] != 0 || p.Best.Reasons[0].Text != "" {
		t.Errorf("chosen %v, best %v", p.Chosen, p.Best)
	}
}

// The memory of what is dropped is used again, for what is larger and smaller, and what was read of it stays.
func TestMemoryIsUsedAgain(t *testing.T) {
	l := NewLog(2, model.GiB)
	add := func(name string, nodes int) { l.Add(l.Pack(of(name, nodes))) }
	add("first", 5)
	add("a", 5)
	read := l.Of("ns", "first")[0]
	for i := range 20 {
		add("b", 1+i*7%11)
		add("last", 3)
		for name, nodes := range map[string]int{"b": 1 + i*7%11, "last": 3} {
			if diff := cmp.Diff([]*Decision{of(name, nodes)}, l.Of("ns", name)); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", name, diff)
			}
		}
	}
	if diff := cmp.Diff(of("first", 5), read); diff != "" {
		t.Errorf("what was read (-want +got):\n%s", diff)
	}
	d, full := of("a", 500), NewLog(2, model.GiB)
	for range 4 {
		full.Add(full.Pack(d))
	}
	if n := testing.AllocsPerRun(20, func() { full.Add(full.Pack(d)) }); n > 10 {
		t.Errorf("%v allocations to keep a decision about 500 nodes", n)
	}
}

func BenchmarkPack(b *testing.B) {
	d, l := of("a", 500), NewLog(100, model.GiB)
	b.ReportAllocs()
	for b.Loop() {
		l.Add(l.Pack(d))
	}
}
