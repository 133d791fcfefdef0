package gossip

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/drover-project/drover/internal/model"
)

// registrationBody is what changes rarely of a node's state: all but its load, routes, pods
// and suffering, which have records of their own.
type registrationBody struct {
	model.NodeState
	// Since is the version of the first record that this life of the node's agent has said:
	// nothing older counts beside it.
	Since uint64 `json:"since"`
}

// registered leaves of a state what a registration tells.
func registered(s model.NodeState) model.NodeState {
	s.Load = model.Load{Allocatable: s.Load.Allocatable}
	s.Routes, s.PodRoutes, s.RoutesAt, s.Pods, s.Suffering, s.Version = nil, nil, time.Time{}, nil, nil, 0
	if b := s.Bandwidth; b != nil {
		s.Bandwidth = nil
		if b.Capacity > 0 {
			s.Bandwidth = &model.Bandwidth{Capacity: b.Capacity}
		}
	}
	return s
}

const (
	// packetRecord is the largest record that fits into a packet beside memberlist's own
	// framing and encryption (1400 bytes less about 50), with room for its probes.
	packetRecord = 1200
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
