package gossip

import "github.com/drover-project/drover/internal/gossip/gossiptest"

// kinds tells Drover's bytes apart.
func kinds() (*gossiptest.Kinds, error) { return gossiptest.NewKinds(key, userKind) }

// userKind names what Drover's messages are.
func userKind(b []byte) string {
	if len(b) < 2 {
		return "empty"
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
