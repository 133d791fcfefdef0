package gossip

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
)

// stateBody is a NodeState without its routes, which travel in records of their own so
// that each fits into one packet however many nodes there are.
type stateBody struct {
	model.NodeState
	// Parts is into how many records the routes were split.
	Parts int `json:"parts"`
}

// routesBody is one part of a node's routes: those to some nodes, by both paths. Agents from
// before there was a pod path read it without PodRoutes, and pass it on whole.
type routesBody struct {
	Part      int                              `json:"part"`
	Parts     int                              `json:"parts"`
	Routes    map[model.NodeID]model.RouteTime `json:"routes"`
	PodRoutes map[model.NodeID]model.RouteTime `json:"podRoutes,omitempty"`
}

const (
	// packetRecord is the largest record that fits into a packet beside memberlist's own
	// framing and encryption (1400 bytes less about 50), with room for its probes.
	packetRecord = 1200
	// partRoutes is how many routes one record holds at first, of either path.
	partRoutes = 20
	maxParts   = 4096
	// maxBody bounds what a compressed body may grow to.
	maxBody = 1 << 20
)

// codec turns bodies into JSON, compressed where that pays, and back.
type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

func newCodec() (*codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithWindowSize(64<<10))
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBody))
	if err != nil {
		return nil, fmt.Errorf("make zstd decoder: %w", err)
	}
	return &codec{enc: enc, dec: dec}, nil
}

const (
	bodyPlain byte = 0
	bodyZstd  byte = 1
)

func (c *codec) encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	if packed := c.enc.EncodeAll(b, []byte{bodyZstd}); len(packed) < len(b)+1 {
		return packed, nil
	}
	return append([]byte{bodyPlain}, b...), nil
}

func (c *codec) decode(b []byte, v any) error {
	if len(b) == 0 {
		return errMalformed
	}
	how, data := b[0], b[1:]
	switch how {
	case bodyPlain:
	case bodyZstd:
		var err error
		if data, err = c.dec.DecodeAll(data, nil); err != nil {
			return fmt.Errorf("%w: %w", errMalformed, err)
		}
	default:
		return errMalformed
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", errMalformed, err)
	}
	return nil
}

// sealState encodes and signs a state: one record for the state, the rest its routes.
func (c *codec) sealState(id *identity.Identity, s model.NodeState) ([][]byte, error) {
	size := partRoutes
	if len(s.PodRoutes) > 0 {
		size /= 2
	}
	for ; ; size /= 2 {
		raws, largest, err := c.sealParts(id, s, size)
		if err != nil {
			return nil, err
		}
		if largest <= packetRecord || size == 1 {
			return raws, nil
		}
	}
}

func (c *codec) sealParts(id *identity.Identity, s model.NodeState, size int) (raws [][]byte, largest int, err error) {
	peers := slices.Compact(slices.Sorted(eachPeer(s.Routes, s.PodRoutes)))
	chunks := slices.Collect(slices.Chunk(peers, size))
	head := stateBody{NodeState: s, Parts: len(chunks)}
	head.Routes, head.PodRoutes = nil, nil
	add := func(k kind, v any) error {
		body, err := c.encode(v)
		if err != nil {
			return err
		}
		raw, err := seal(id, k, s.Version, body)
		raws = append(raws, raw)
		if k == kindRoutes {
			largest = max(largest, len(raw))
		}
		return err
	}
	if err := add(kindState, head); err != nil {
		return nil, 0, err
	}
	for i, peers := range chunks {
		part := routesBody{Part: i, Parts: len(chunks), Routes: only(s.Routes, peers), PodRoutes: only(s.PodRoutes, peers)}
		if err := add(kindRoutes, part); err != nil {
			return nil, 0, err
		}
	}
	return raws, largest, nil
}

// eachPeer goes through the peers of both tables.
func eachPeer(a, b map[model.NodeID]model.RouteTime) iter.Seq[model.NodeID] {
	return func(yield func(model.NodeID) bool) {
		for _, routes := range []map[model.NodeID]model.RouteTime{a, b} {
			for p := range routes {
				if !yield(p) {
					return
				}
			}
		}
	}
}

// only gives those of the routes that lead to the peers.
func only(routes map[model.NodeID]model.RouteTime, peers []model.NodeID) map[model.NodeID]model.RouteTime {
	some := map[model.NodeID]model.RouteTime{}
	for _, p := range peers {
		if r, has := routes[p]; has {
			some[p] = r
		}
	}
	return some
}
