package edges

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/traffic"
)

var (
	t0  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	web = of("web")
	db  = of("db")
)

func of(name string) model.Workload {
	return model.WorkloadOf("shop", "Deployment", name)
}

func pod(name string) model.PodID {
	return model.PodID{Namespace: "shop", Name: name, UID: "uid-" + name}
}

// known are the workloads of local pods by name, and of remote addresses.
type known map[string]model.Workload

func (k known) Local(p model.PodID) (model.Workload, bool) { w, ok := k[p.Name]; return w, ok }

func (k known) Remote(e traffic.Endpoint) (model.Workload, bool) {
	if e.Pod.Name != "" {
		return k.Local(e.Pod)
	}
	w, ok := k[e.Address]
	return w, ok
}

func talk(local string, remote string, bytes model.Bytes) traffic.Talk {
	return traffic.Talk{Local: traffic.Endpoint{Pod: pod(local), Node: "n1"}, Remote: traffic.Endpoint{Node: "n2", Address: remote}, Sent: bytes / 4, Received: bytes - bytes/4}
}

func edge(local, remote model.Workload, volume model.Bytes) model.Edge {
	return model.Edge{Local: local, Remote: remote, Volume: volume}
}

func wantEdges(t *testing.T, what string, l *Ledger, now time.Time, want ...model.Edge) {
	t.Helper()
	if got := l.Edges(now); !reflect.DeepEqual(got, append([]model.Edge{}, want...)) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestTalksOfPodsAddUpByWorkload(t *testing.T) {
	who := known{"web-1": web, "web-2": web, "10.2.0.5": db, "10.2.0.6": db, "10.2.0.7": of("cache")}
	l := NewLedger()
	l.Feed(t0, []traffic.Talk{talk("web-1", "10.2.0.5", 1000), talk("web-1", "10.2.0.6", 200), talk("web-2", "10.2.0.5", 34), talk("web-2", "10.2.0.7", 5000)}, who)
	wantEdges(t, "at first", l, t0, edge(web, of("cache"), 5000), edge(web, db, 1234))
	// Talks tell sums: the same again is nothing new.
	l.Feed(t0, []traffic.Talk{talk("web-1", "10.2.0.5", 1000), talk("web-1", "10.2.0.6", 300)}, who)
	wantEdges(t, "100 more", l, t0, edge(web, of("cache"), 5000), edge(web, db, 1334))
	// One that was forgotten in between begins anew.
	l.Feed(t0, []traffic.Talk{talk("web-1", "10.2.0.5", 10)}, who)
	wantEdges(t, "10 more", l, t0, edge(web, of("cache"), 5000), edge(web, db, 1344))
}

// Nodes, strangers and a pod with itself make no edges.
func TestOnlyPodsHaveEdges(t *testing.T) {
	who := known{"web-1": web, "web-2": web}
	self := talk("web-1", "", 9)
	self.Remote = self.Local
	ofNode := talk("web-1", "10.2.0.5", 9)
	ofNode.Local = traffic.Endpoint{Node: "n1"}
	other := talk("web-1", "", 9)
	other.Remote = traffic.Other
	l := NewLedger()
	l.Feed(t0, []traffic.Talk{self, ofNode, other, talk("web-1", "", 9), talk("web-1", "192.0.2.1", 9)}, who)
	wantEdges(t, "nobody", l, t0)
	// Two pods of one node: each tells its own side.
	both := talk("web-1", "", 100)
	both.Remote = traffic.Endpoint{Pod: pod("web-2"), Node: "n1"}
	l.Feed(t0, []traffic.Talk{both}, who)
	wantEdges(t, "two pods of one workload", l, t0, edge(web, web, 100))
}

// What no packet is for, others would not be told.
func TestNamesThatAreNotToldTakeNobodysPlace(t *testing.T) {
	long := of(strings.Repeat("y", 100))
	who, talks := known{"web-1": web, "long-1": long, "10.2.0.5": db, "odd": model.Workload("a/b/\x1b")}, []traffic.Talk{talk("web-1", "10.2.0.5", 9), talk("web-1", "odd", 5000)}
	for i := range Most {
		address := fmt.Sprint("10.3.0.", i)
		who[address] = of(fmt.Sprint(i, strings.Repeat("x", MaxNames-len(long)-len(of("0")))))
		talks = append(talks, talk("long-1", address, 9000))
	}
	l := NewLedger()
	l.Feed(t0, talks, who)
	got := l.Edges(t0)
	if len(got) != 11 || got[10] != edge(web, db, 9) { // the ten of one digit just fit
		t.Errorf("%d edges, the last %v", len(got), got[len(got)-1])
	}
}

// The first bytes flow before any node has told whose they are, and a pod may be gone by then.
func TestWhatWasCarriedBeforeTheEndsAreKnownCounts(t *testing.T) {
	l := NewLedger()
	l.Feed(t0, []traffic.Talk{talk("web-1", "10.2.0.5", 900)}, known{"10.2.0.5": db})
	wantEdges(t, "the own end is not known", l, t0)
	l.Feed(t0, []traffic.Talk{talk("web-1", "10.2.0.5", 1000)}, known{"web-1": web})
	wantEdges(t, "the other end is not known", l, t0)
	l.Feed(t0, []traffic.Talk{talk("web-1", "10.2.0.5", 1500)}, known{"10.2.0.5": db}) // web-1 is gone
	wantEdges(t, "it is", l, t0, edge(web, db, 1500))
}

// A pod may turn out to be of another workload than it seemed, as one that was moved does when its
// owner has it back.
func TestWhoseAPodIsMayChange(t *testing.T) {
	l := NewLedger()
	l.Feed(t0, []traffic.Talk{talk("web-1", "10.2.0.5", 900)}, known{"web-1": of("seemed"), "10.2.0.5": db})
	l.Feed(t0, []traffic.Talk{talk("web-1", "10.2.0.5", 1500)}, known{"web-1": web, "10.2.0.5": db})
	wantEdges(t, "it is another's", l, t0, edge(of("seemed"), db, 900), edge(web, db, 600))
	l.Feed(t0, []traffic.Talk{talk("web-1", "10.2.0.5", 2000)}, known{"10.2.0.5": db})
	wantEdges(t, "it is gone", l, t0, edge(web, db, 1100), edge(of("seemed"), db, 900))
}

func TestEdgesDecayAndAreForgottenAfterADay(t *testing.T) {
	who := known{"web-1": web, "10.2.0.5": db}
	l := NewLedger()
	l.Feed(t0, []traffic.Talk{talk("web-1", "10.2.0.5", 1<<40)}, who)
	wantEdges(t, "an hour later", l, t0.Add(time.Hour), edge(web, db, 1<<39))
	l.Feed(t0.Add(time.Hour), []traffic.Talk{talk("web-1", "10.2.0.5", 1<<40+1<<39)}, who)
	wantEdges(t, "and as much as is left again", l, t0.Add(time.Hour), edge(web, db, 1<<40))
	wantEdges(t, "a clock that went back", l, t0, edge(web, db, 1<<40))
	end := t0.Add(time.Hour + Forgotten)
	l.Feed(end, nil, who)
	wantEdges(t, "a day later", l, end, edge(web, db, 1<<16))
	l.Feed(end.Add(time.Second), nil, who)
	wantEdges(t, "and more", l, end.Add(time.Second))
}

// A ledger goes on where an earlier one has ended, whose memory may be anything.
func TestALedgerRemembersAnother(t *testing.T) {
	who := known{"web-1": web, "10.2.0.5": db}
	first := NewLedger()
	first.Feed(t0, []traffic.Talk{talk("web-1", "10.2.0.5", 1<<40)}, who)
	hour := t0.Add(time.Hour)
	raw, err := json.Marshal(first.Memory(hour))
	if err != nil {
		t.Fatal(err)
	}
	var kept []Remembered
	if err := json.Unmarshal(raw, &kept); err != nil {
		t.Fatal(err)
	}
	l := NewLedger()
	l.Remember(hour, append(kept, Remembered{edge("odd", db, 1), t0}, Remembered{edge(web, "a/b/c d", 1), t0}, Remembered{edge(web, of("x"), -1), t0},
		Remembered{edge(web, of("x"), MaxVolume+1), t0}, Remembered{edge(web, of("x"), 1), hour.Add(time.Second)}))
	wantEdges(t, "an hour later", l, hour, edge(web, db, 1<<39))
	l.Feed(hour, []traffic.Talk{talk("web-1", "10.2.0.5", 1<<39)}, who)
	wantEdges(t, "and half as much again", l, hour, edge(web, db, 1<<40))
	many := make([]Remembered, 4*Most)
	for i := range many {
		many[i] = Remembered{edge(web, of(fmt.Sprint(i)), 1), t0}
	}
	l = NewLedger()
	l.Remember(t0, many)
	if len(l.edges) != Most {
		t.Errorf("%d edges are remembered", len(l.edges))
	}
}

// However many workloads there are, a node tells of the heaviest, and equals do not change places.
func TestTheHeaviestAreTold(t *testing.T) {
	who, talks := known{"web-1": web}, []traffic.Talk{}
	for i := range 2 * mostKept {
		address := fmt.Sprint("10.2.0.", i)
		who[address] = of(fmt.Sprintf("w%04d", i))
		talks = append(talks, talk("web-1", address, model.Bytes(1000*(i+1))))
	}
	l := NewLedger()
	l.Feed(t0, talks, who)
	told := l.Edges(t0)
	if len(told) != Most || len(l.edges) != mostKept || told[0] != edge(web, of("w2047"), 2048000) || told[Most-1] != edge(web, of("w2016"), 2017000) {
		t.Fatalf("%d are told and %d kept, from %v to %v", len(told), len(l.edges), told[0], told[len(told)-1])
	}
	next := func(more model.Bytes) bool { // the first that is not told carries more
		talks[2015].Sent += more
		l.Feed(t0, talks, who)
		for _, e := range l.Edges(t0) {
			if e.Remote == of("w2015") {
				return true
			}
		}
		return false
	}
	if next(2000) {
		t.Error("one that is heavier by less than a thousandth takes the place of one that was told")
	}
	if !next(600_000) {
		t.Error("one that is heavier by a quarter is not told")
	}
}

func TestEndsAreOfThoseWhoTalkAndRun(t *testing.T) {
	end := func(i int) model.End {
		return model.End{Workload: web, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})}}
	}
	l, running, talks := NewLedger(), map[model.PodID]model.End{}, []traffic.Talk{}
	for i := range 100 {
		name := fmt.Sprint("web-", i)
		running[pod(name)] = end(i)
		if i > 0 { // the first is silent
			talks = append(talks, talk(name, "192.0.2.1", model.Bytes(i)))
		}
	}
	l.Feed(t0, talks[:9], known{})
	var want []model.End
	for i := 1; i < 10; i++ {
		want = append(want, end(i))
	}
	if got := l.Ends(t0, running); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	delete(running, pod("web-1"))
	if got := l.Ends(t0, running); !reflect.DeepEqual(got, want[1:]) {
		t.Errorf("with one gone %v, want %v", got, want[1:])
	}
	l.Feed(t0, talks, known{})
	if got := l.Ends(t0, running); len(got) != MostEnds || !reflect.DeepEqual(got[MostEnds-1], end(99)) {
		t.Errorf("%d ends of 99 that talk, the last %v", len(got), got[len(got)-1])
	}
	// Who has talked once is there for as long as it runs.
	l.Feed(t0.Add(48*time.Hour), nil, known{})
	if got := l.Ends(t0.Add(48*time.Hour), map[model.PodID]model.End{pod("web-7"): end(7)}); !reflect.DeepEqual(got, []model.End{end(7)}) {
		t.Errorf("two days later %v", got)
	}
}
