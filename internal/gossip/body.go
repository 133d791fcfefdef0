package gossip

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/drover-project/drover/internal/model"
)

// registrationBody is what changes rarely of a node's state: all but its load, routes, pods, talk
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
	s.Ends, s.Edges = nil, nil
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
	// maxBody bounds what a compressed body may grow to, and maxRatio by how much: what a node
	// says must not take many times as much memory and time as to carry it.
	maxBody  = maxRecord
	maxRatio = 32
	// maxSuffering is how many containers in contention one node tells of.
	maxSuffering = 256
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
	if packed := c.enc.EncodeAll(b, []byte{bodyZstd}); len(packed) < len(b)+1 && len(b) <= maxRatio*len(packed) {
		return packed, nil
	}
	return append([]byte{bodyPlain}, b...), nil
}

func (c *codec) decode(b []byte, v any) error {
	data, err := c.unpack(b)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", errMalformed, err)
	}
	return nil
}

func (c *codec) unpack(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, errMalformed
	}
	how, data := b[0], b[1:]
	switch how {
	case bodyPlain:
		return data, nil
	case bodyZstd:
		data, err := c.dec.DecodeAll(data, nil)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errMalformed, err)
		}
		if len(data) <= maxRatio*len(b) {
			return data, nil
		}
	}
	return nil, errMalformed
}

// decodeSuffering makes nothing of a list that is too long.
func (c *codec) decodeSuffering(b []byte) ([]model.Contention, error) {
	data, err := c.unpack(b)
	if err != nil {
		return nil, err
	}
	in := json.NewDecoder(bytes.NewReader(data))
	switch begin, err := in.Token(); {
	case err == nil && begin == nil: // null
		return nil, nil
	case begin != json.Delim('['):
		return nil, errMalformed
	}
	var list []model.Contention
	for in.More() {
		var one model.Contention
		if err := in.Decode(&one); err != nil || len(list) == maxSuffering {
			return nil, errMalformed
		}
		list = append(list, one)
	}
	if _, err := in.Token(); err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return list, nil
}
