package podlog

import (
	"bytes"
	"errors"
)

// maxLine is how much of a line is looked at, and maxEntry how much of an entry is kept while its
// end has not been written: the line and what stands before it.
const (
	maxLine  = 4 << 10
	maxEntry = maxLine + 128
)

// entry is what the container runtime writes of a line, or of a part of a long one:
//
//	2026-01-02T15:04:05.999999999Z stdout F text
//
// Kubernetes: design-proposals-archive/node/kubelet-cri-logging.md.
type entry struct {
	stream  stream
	partial bool // the line goes on in the stream's next entry
	text    []byte
}

type stream int

const (
	stdout stream = iota
	stderr
)

var errNoEntry = errors.New("no entry of a CRI log")

// parseEntry reads an entry without its newline. The text is part of raw.
func parseEntry(raw []byte) (entry, error) {
	at, rest, ok := bytes.Cut(raw, []byte{' '})
	if !ok || len(at) < len("2026-01-02T15:04:05Z") || at[4] != '-' || at[7] != '-' || at[10] != 'T' {
		return entry{}, errNoEntry
	}
	var e entry
	name, rest, ok := bytes.Cut(rest, []byte{' '})
	switch {
	case !ok:
		return entry{}, errNoEntry
	case string(name) == "stderr":
		e.stream = stderr
	case string(name) != "stdout":
		return entry{}, errNoEntry
	}
	tags, text, ok := bytes.Cut(rest, []byte{' '})
	if !ok { // an empty line's entry may end with its tag
		text = nil
	}
	switch tag, _, _ := bytes.Cut(tags, []byte{':'}); string(tag) {
	case "F":
	case "P":
		e.partial = true
	default:
		return entry{}, errNoEntry
	}
	e.text = text
	return e, nil
}

// lines puts together what a log holds from pieces of any size. Of a line longer than maxLine
// the rest is left out. Its zero value begins at the beginning of an entry.
type lines struct {
	entry   []byte    // begun, up to maxEntry
	started [2][]byte // by stream: the line of which only parts were written, up to maxLine
	lost    bool      // the rest of an entry is to be passed over
}

// feed calls f with every line that piece completes. f may not keep it.
func (l *lines) feed(piece []byte, f func(line []byte)) {
	for len(piece) > 0 {
		end := bytes.IndexByte(piece, '\n')
		raw := piece
		if end >= 0 {
			raw, piece = piece[:end], piece[end+1:]
		} else {
			piece = nil
		}
		switch {
		case l.lost:
			l.lost = end < 0
		case end < 0:
			l.entry = appendUpTo(l.entry, raw, maxEntry)
		case len(l.entry) > 0:
			l.take(appendUpTo(l.entry, raw, maxEntry), f)
			l.entry = l.entry[:0]
		default:
			l.take(raw[:min(len(raw), maxEntry)], f)
		}
	}
}

func (l *lines) take(raw []byte, f func(line []byte)) {
	e, err := parseEntry(raw)
	if err != nil {
		return // not the runtime's: nothing of it is looked at
	}
	begun := &l.started[e.stream]
	switch {
	case e.partial:
		*begun = appendUpTo(*begun, e.text, maxLine)
	case len(*begun) > 0:
		f(appendUpTo(*begun, e.text, maxLine))
		*begun = (*begun)[:0]
	default:
		f(e.text[:min(len(e.text), maxLine)])
	}
}

// jump forgets what was begun: what comes next is from elsewhere, and from the middle of an entry
// if so said.
func (l *lines) jump(middle bool) {
	l.entry, l.started[stdout], l.started[stderr] = l.entry[:0], l.started[stdout][:0], l.started[stderr][:0]
	l.lost = middle
}

func appendUpTo(to, more []byte, most int) []byte {
	return append(to, more[:min(len(more), max(0, most-len(to)))]...)
}
