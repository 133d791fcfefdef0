package transfer

import (
	"testing"
	"time"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
)

const (
	raw = agentv1.Codec_RAW
	s2c = agentv1.Codec_S2
	zst = agentv1.Codec_ZSTD
)

func TestCheapest(t *testing.T) {
	seen := map[agentv1.Codec]coder{s2c: {1000, 2}, zst: {100, 4}}
	for name, c := range map[string]struct {
		link float64
		want agentv1.Codec
	}{
		// raw 1/10 = 0.1; s2 1/1000 + 1/20 = 0.051; zstd 1/100 + 1/40 = 0.035
		"slow": {10, zst},
		// raw 0.01; s2 0.001 + 0.005 = 0.006; zstd 0.01 + 0.0025 = 0.0125
		"fast": {100, s2c},
		// raw 0.001; s2 0.001 + 0.0005 = 0.0015; zstd 0.01 + 0.00025
		"faster than a codec": {1000, raw},
	} {
		if got := cheapest(c.link, seen); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// What is seen of the link and of the contents decides, and contents that did not compress
// are tried again.
func TestPace(t *testing.T) {
	var p pace
	if got := p.choose(); got != s2c {
		t.Errorf("nothing known: %v", got)
	}
	send := func(rate int) {
		for range 64 {
			p.sent(rate, time.Second)
		}
	}
	send(10e6)
	if got := p.choose(); got != zst {
		t.Errorf("10 MB/s: %v", got)
	}
	send(300e6)
	if got := p.choose(); got != s2c {
		t.Errorf("300 MB/s: %v", got)
	}
	for range 64 {
		p.compressed(s2c, 1<<20, 1<<20, time.Millisecond)
		p.compressed(zst, 1<<20, 1<<20, 3*time.Millisecond)
	}
	got := map[agentv1.Codec]int{}
	for range 10 * try {
		got[p.choose()]++
	}
	if got[raw] != 10*(try-1) || got[s2c] != 10 {
		t.Errorf("incompressible: %v", got)
	}
	send(100e9)
	if clear(got); p.choose() != raw {
		t.Errorf("a link faster than all: %v", got)
	}
	for range 2 * try {
		got[p.choose()]++
	}
	if got[raw] != 2*try {
		t.Errorf("a link faster than all: %v", got)
	}
}

func TestCodecs(t *testing.T) {
	for _, codec := range []agentv1.Codec{raw, s2c, zst} {
		for name, data := range map[string][]byte{"text": []byte(whole("drover")[:chunkSize]), "noise": random(int(chunkSize)), "little": []byte("x"), "nothing": {}} {
			packed := encode(codec, data, nil)
			if len(packed) > len(data) {
				continue // it is sent as it is
			}
			got := make([]byte, len(data))
			if err := decode(got, codec, packed); err != nil || string(got) != string(data) {
				t.Errorf("%s by %v: %v", name, codec, err)
			}
			if len(data) > 0 && decode(got[1:], codec, packed) == nil {
				t.Errorf("%s by %v: too little room, and no error", name, codec)
			}
			if decode(make([]byte, len(data)+1), codec, packed) == nil {
				t.Errorf("%s by %v: too much room, and no error", name, codec)
			}
		}
	}
}
