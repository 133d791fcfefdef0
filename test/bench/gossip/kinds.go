package gossip

import (
	"github.com/drover-project/drover/internal/gossip"
	"github.com/drover-project/drover/internal/gossip/gossiptest"
	"github.com/drover-project/drover/internal/spread"
)

// kinds tells Drover's bytes apart.
func kinds() (*gossiptest.Kinds, error) { return gossiptest.NewKinds(key, userKinds) }

// userKinds tells what one of Drover's messages is made of.
func userKinds(b []byte, add func(kind string, bytes int)) {
	if !spread.Is(b) {
		add(gossip.KindOf(b), len(b))
		return
	}
	what, records := spread.Look(b)
	framing := len(b)
	for _, raw := range records {
		add(gossip.KindOf(raw), len(raw))
		framing -= len(raw)
	}
	add(what, framing)
}
