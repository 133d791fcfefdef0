package transfer

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
)

// parallel is how many calls of the zstd coders run at once; more wait.
const parallel = 4

var (
	zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(parallel),
			zstd.WithWindowSize(int(chunkSize)), zstd.WithEncoderCRC(false))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	})
	// What is decoded comes from another node: no more memory than a chunk needs.
	zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(parallel), zstd.WithDecoderMaxMemory(uint64(chunkSize)),
			zstd.WithDecoderMaxWindow(uint64(chunkSize)), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// encode compresses data into scratch, which it may replace.
func encode(codec agentv1.Codec, data, scratch []byte) []byte {
	switch codec {
	case agentv1.Codec_S2:
		return s2.Encode(scratch[:cap(scratch)], data)
	case agentv1.Codec_ZSTD:
		return zstdEncoder().EncodeAll(data, scratch[:0])
	}
	return data
}

// decode fills dst, neither more nor less.
func decode(dst []byte, codec agentv1.Codec, data []byte) error {
	if len(data) > len(dst) || codec == agentv1.Codec_RAW && len(data) != len(dst) {
		return fmt.Errorf("%d bytes by codec %v for %d", len(data), codec, len(dst))
	}
	switch codec {
	case agentv1.Codec_RAW:
		copy(dst, data)
		return nil
	case agentv1.Codec_S2:
		n, err := s2.DecodedLen(data)
		if err != nil || n != len(dst) {
			return fmt.Errorf("an s2 block of %d bytes says that it holds %d (%v), want %d", len(data), n, err, len(dst))
		}
		_, err = s2.Decode(dst, data)
		return err
	case agentv1.Codec_ZSTD:
		out, err := zstdDecoder().DecodeAll(data, dst[:0:len(dst)])
		if err == nil && len(out) != len(dst) {
			err = fmt.Errorf("a zstd frame of %d bytes holds %d, want %d", len(data), len(out), len(dst))
		}
		return err
	}
	return fmt.Errorf("codec %d is not known", codec)
}
