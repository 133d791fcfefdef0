package gossip

import (
	"github.com/drover-project/drover/internal/gossip/gossiptest"
	"github.com/drover-project/drover/internal/spread"
)

// kinds tells Drover's bytes apart.
func kinds() (*gossiptest.Kinds, error) { return gossiptest.NewKinds(key, userKinds) }

// userKinds tells what one of Drover's messages is made of.
func userKinds(b []byte, add func(kind string, bytes int)) {
	if !spread.Is(b) {
		add(recordKind(b), len(b))
		return
	}
	what, records := spread.Look(b)
	framing := len(b)
	for _, raw := range records {
		add(recordKind(raw), len(raw))
		framing -= len(raw)
	}
	add(what, framing)
}

func recordKind(b []byte) string {
	if len(b) < 2 {
		return "unknown"
	}
	if b[0] == 2 {
		return "loads"
	}
	switch b[1] {
	case 1:
		return "certificates"
	case 4:
		return "locations"
	case 5, 7:
		return "registrations"
	case 6:
		return "routes"
	case 8:
		return "pods"
	}
	return "unknown"
}
