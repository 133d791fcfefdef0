package linkstate

import "time"

// queue is a binary heap, the nearest on top. container/heap would put every entry behind
// an interface, which costs more than the rest of the search.
type queue []entry

type entry struct {
	length time.Duration
	node   int32
}

func (e entry) before(o entry) bool {
	return e.length < o.length || e.length == o.length && e.node < o.node
}

func (q *queue) push(length time.Duration, node int32) {
	h := append(*q, entry{length, node})
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h[i].before(h[up]) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
	*q = h
}

func (q *queue) pop() entry {
	h := *q
	top, last := h[0], len(h)-1
	h[0] = h[last]
	h = h[:last]
	for i := 0; ; {
		down := 2*i + 1
		if down >= len(h) {
			break
		}
		if down+1 < len(h) && h[down+1].before(h[down]) {
			down++
		}
		if !h[down].before(h[i]) {
			break
		}
		h[i], h[down] = h[down], h[i]
		i = down
	}
	*q = h
	return top
}
