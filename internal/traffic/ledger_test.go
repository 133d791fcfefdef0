package traffic

import (
	"fmt"
	"math/rand"
	"reflect"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/model"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

var (
	web  = Endpoint{Pod: model.PodID{Namespace: "shop", Name: "web", UID: "1"}, Node: "n1"}
	self = Endpoint{Node: "n1"}
	n2   = Endpoint{Node: "n2"}
	db   = Endpoint{Node: "n2", Address: "10.2.0.5"}
)

const tick = 5 * time.Second

func TestRatesAreOfTheWindowAndSumsOfAll(t *testing.T) {
	l := NewLedger("n1", time.Minute, 100)
	l.Feed(t0, t0.Add(10*time.Second), []Exchange{{Local: web, Remote: db, Sent: 1000, Received: 20}, {Local: web, Remote: db, Sent: 200}})
	want := []Talk{{Local: web, Remote: db, Sent: 1200, Received: 20, Sending: 120, Receiving: 2}} // in 10 s
	if got := l.Talks(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	l.Feed(t0.Add(10*time.Second), t0.Add(40*time.Second), []Exchange{{Local: web, Remote: db, Sent: 600}})
	l.Feed(t0.Add(40*time.Second), t0.Add(100*time.Second), nil)
	l.Feed(t0.Add(100*time.Second), t0.Add(110*time.Second), []Exchange{{Local: web, Remote: db, Sent: 30}, {Local: self, Remote: db, Sent: 90}})
	want = []Talk{ // 90 and 30 in 60 s: what is less recent has left the window
		{Local: self, Remote: db, Sent: 90, Sending: 1.5},
		{Local: web, Remote: db, Sent: 1830, Received: 20, Sending: .5},
	}
	if got := l.Talks(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// After readings that failed one takes in all that they missed: in the window is a part of it.
func TestAReadingLongerThanTheWindow(t *testing.T) {
	l := NewLedger("n1", time.Minute, 100)
	l.Feed(t0, t0.Add(tick), nil)
	l.Feed(t0.Add(tick), t0.Add(tick+10*time.Minute), []Exchange{{Local: web, Remote: db, Sent: 6000, Received: 600}})
	want := []Talk{{Local: web, Remote: db, Sent: 6000, Received: 600, Sending: 10, Receiving: 1}} // in 600 s
	if got := l.Talks(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestRoundTripsArePeersByPath(t *testing.T) {
	trip := func(smoothed, least time.Duration, segments uint64) RoundTrip {
		return RoundTrip{smoothed, least, segments}
	}
	l := NewLedger("n1", time.Minute, 100)
	l.Feed(t0, t0.Add(tick), []Exchange{
		{Local: self, Remote: n2, RoundTrip: trip(4, 3, 1), Sent: 1},
		{Local: self, Remote: n2, RoundTrip: trip(8, 2, 3), Sent: 1}, // (4 + 3*8) / 4 = 7
		{Local: self, Remote: db, RoundTrip: trip(20, 0, 1), Received: 5},
		{Local: web, Remote: n2, RoundTrip: trip(40, 9, 1)},           // (20 + 40) / 2
		{Local: web, Remote: db},                                      // nothing is known of it
		{Local: web, Remote: self, RoundTrip: trip(1, 1, 100)},        // not another node
		{Local: web, Remote: Endpoint{Address: "192.0.2.1"}, Sent: 9}, // on no node
	})
	want := []Peer{{Node: "n2", Sent: 2, Received: 5, RoundTrips: map[Path]RoundTrip{NodePath: trip(7, 2, 4), PodPath: trip(30, 9, 2)}}}
	if got := l.Peers(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	l.Feed(t0.Add(tick), t0.Add(2*tick), []Exchange{{Local: self, Remote: n2, RoundTrip: trip(15, 1, 4)}}) // (4*7 + 4*15) / 8
	if got := l.Peers()[0].RoundTrips[NodePath]; got != trip(11, 1, 8) {
		t.Errorf("%+v", got)
	}
	l.Feed(t0.Add(2*tick), t0.Add(tick+time.Minute), nil)
	if got := l.Peers()[0].RoundTrips; len(got) != 1 || got[NodePath] != trip(15, 1, 4) {
		t.Errorf("a minute later: %+v", got)
	}
	l.Keep(func(id model.NodeID) bool { return id != "n2" })
	if got := l.Peers(); len(got) != 0 {
		t.Errorf("of a node that is gone: %+v", got)
	}
}

// However many talk, so many are told apart, strangers leave room for the others, and no byte
// is lost.
func TestTheLedgerIsBounded(t *testing.T) {
	const size = 40
	r := rand.New(rand.NewSource(1))
	l := NewLedger("n1", time.Minute, size)
	var fed, talked model.Bytes
	for i := range 20 {
		var all []Exchange
		for j := range 100 {
			x := Exchange{Local: web, Remote: Endpoint{Address: fmt.Sprint("192.0.2.", i, ".", j)}, Sent: model.Bytes(r.Intn(1000))}
			if j%10 == 0 {
				x.Remote = Endpoint{Node: "n2", Address: fmt.Sprint("10.2.0.", j)}
			}
			fed += x.Sent
			all = append(all, x)
		}
		l.Feed(t0.Add(time.Duration(i)*tick), t0.Add(time.Duration(i+1)*tick), all)
	}
	known := 0
	talks := l.Talks()
	for _, talk := range talks {
		talked += talk.Sent
		if talk.Remote.Node == "n2" {
			known++
		}
	}
	if talked != fed || known != 10 || len(talks) > size+1 {
		t.Errorf("%d of %d bytes in %d talks, %d of them of 10 with nodes", talked, fed, len(talks), known)
	}
	l.Feed(t0.Add(time.Hour), t0.Add(time.Hour+tick), []Exchange{{Local: web, Remote: Endpoint{Address: "192.0.2.1"}, Sent: 1}})
	if got := l.Talks(); len(got) != 1 {
		t.Errorf("after an hour of silence: %+v", got)
	}
	if l.strangers != 1 {
		t.Errorf("%d strangers are counted, there is 1", l.strangers)
	}
}
