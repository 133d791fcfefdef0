package transfer

import (
	"sync"
	"time"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
)

// coder is what is known of a codec: how many bytes it takes a second, and how many it makes
// one of.
type coder struct{ speed, ratio float64 }

// usual are the codecs on memory of real programs, one thread: what is believed before any
// was seen.
var usual = map[agentv1.Codec]coder{
	agentv1.Codec_S2:   {speed: 1.2e9, ratio: 3},
	agentv1.Codec_ZSTD: {speed: 0.4e9, ratio: 5},
}

// try is after how many chunks that were not compressed one is, to see whether that still
// does not pay.
const try = 16

// pace is what one transfer has seen of its link and of the codecs, on these contents.
type pace struct {
	mu sync.Mutex
	// link is how many bytes a second a stream was rid of while it sent. 0: not known.
	link  float64
	seen  map[agentv1.Codec]coder
	plain int
}

// cheapest is the codec by which a byte is compressed and sent in the least time, by one
// stream that does one after the other.
func cheapest(link float64, of map[agentv1.Codec]coder) agentv1.Codec {
	best, least := agentv1.Codec_RAW, 1/link
	for _, c := range []agentv1.Codec{agentv1.Codec_S2, agentv1.Codec_ZSTD} {
		if cost := 1/of[c].speed + 1/(of[c].ratio*link); cost < least {
			best, least = c, cost
		}
	}
	return best
}

// choose gives the codec for the next chunk.
func (p *pace) choose() agentv1.Codec {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen == nil {
		p.seen = map[agentv1.Codec]coder{}
		for c, u := range usual {
			p.seen[c] = u
		}
	}
	if p.link == 0 {
		return agentv1.Codec_S2
	}
	best := cheapest(p.link, p.seen)
	if best != agentv1.Codec_RAW {
		p.plain = 0
		return best
	}
	if p.plain++; p.plain%try != 0 {
		return best
	}
	// Contents may have become others: a codec that is fast enough gets another chance.
	return cheapest(p.link, usual)
}

// weight is that of the newest of the measurements that a mean is over.
const weight = 0.25

func mean(old, now float64) float64 {
	if old == 0 {
		return now
	}
	return old + weight*(now-old)
}

// compressed notes what a codec made of a chunk.
func (p *pace) compressed(c agentv1.Codec, from, to int, took time.Duration) {
	if from == 0 || to == 0 || took <= 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.seen[c]
	p.seen[c] = coder{mean(was.speed, float64(from)/took.Seconds()), mean(was.ratio, float64(from)/float64(to))}
}

// sent notes that a stream was rid of so many bytes.
func (p *pace) sent(n int, took time.Duration) {
	if n < int(chunkSize)/16 || took <= 0 {
		return // it tells the time of a call, not of a link
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.link = mean(p.link, float64(n)/took.Seconds())
}
