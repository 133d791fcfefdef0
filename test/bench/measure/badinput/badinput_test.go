package badinput

import (
	"flag"
	"strings"
	"testing"

	"github.com/drover-project/drover/bpf/routetime"
)

var datagrams = flag.Int("badinput.datagrams", 20000, "how many datagrams of bad input are sent")

// No figure changes, whatever comes in: Run compares them. "-badinput.datagrams=1000000 -v" is
// what "make bench-badinput" does.
func TestBadInput(t *testing.T) {
	for name, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			r, err := Run(t.Context(), Config{Datagrams: *datagrams, IPv6: v6, Seed: 1})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v: 10,000 a second take %.2f%% of a core", r, 100*r.Cores(10000))
		})
	}
}

// What Run would not overlook.
func TestChangesAreFound(t *testing.T) {
	before := figures{Answered: 50, Measured: 50, Trips: 50}
	after := before
	after.Measured++
	if err := unchanged(before, before); err != nil {
		t.Error(err)
	}
	if err := unchanged(before, after); err == nil {
		t.Error("one more measured was overlooked")
	}
	s := spending{sent: map[Kind]uint64{Resent: 3, Stranger: 2, Replayed: 1, Misattributed: 1}}
	good := routetime.Stats{Answered: 3, Stranger: 2, Unknown: 1, WrongPeer: 1}
	if err := s.counted(routetime.Stats{}, good); err != nil {
		t.Error(err)
	}
	for want, spoil := range map[string]func(*routetime.Stats){
		"answered":                        func(s *routetime.Stats) { s.Answered++ },
		"strangers":                       func(s *routetime.Stats) { s.Stranger-- },
		"unknown and from the wrong peer": func(s *routetime.Stats) { s.Unknown-- },
		"nothing was tried":               func(s *routetime.Stats) { s.WrongPeer, s.Unknown = 0, 2 },
	} {
		bad := good
		spoil(&bad)
		if err := s.counted(routetime.Stats{}, bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}
