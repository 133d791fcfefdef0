// Package lazypages gives CRIU's lazy-pages daemon the memory of a copy, from wherever it is. The
// daemon was made to ask CRIU's page server over TCP, which sends memory in clear to whoever
// connects first, and when that connection is lost it gives up, and the copy with it. So it gets a
// socket pair instead (criu lazy-pages --page-server --ps-socket), whose other end is a relay of
// Drover's, a process of its own: it asks an agent, and asks the next one if that agent dies.
package lazypages

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// CRIU's page server's words, of version 4.2 on (criu/page-xfer.c); before, the number of pages had
// half the width, and what a daemon of that time says makes no sense here.
const (
	headerSize = 32
	// commands are the low half of their word, flags the high one.
	get, addFlagged = 7, 6
	done, doneClose = 0x1023, 0x1024
	present         = 1 << 2
)

// MostAtOnce is how much memory, in bytes, a daemon may ask for at once: as much as CRIU 4.2.1's does at most.
const MostAtOnce = 1 << 20

// header is struct page_server_iov.
type header struct {
	command                 uint32
	pages, address, process uint64
}

func readHeader(r io.Reader) (header, error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return header{}, err
	}
	return header{command: binary.NativeEndian.Uint32(b[0:]), pages: binary.NativeEndian.Uint64(b[8:]),
		address: binary.NativeEndian.Uint64(b[16:]), process: binary.NativeEndian.Uint64(b[24:])}, nil
}

// Range is memory of one process.
type Range struct {
	// Process is its PID in the images. Address and Size are in bytes, and whole pages.
	Process, Address, Size uint64
}

func (h header) wants() (Range, error) {
	page := uint64(os.Getpagesize())
	if h.pages > MostAtOnce/page {
		return Range{}, fmt.Errorf("%d pages are asked for at once, want at most %d", h.pages, MostAtOnce/page)
	}
	r := Range{Process: h.process, Address: h.address, Size: h.pages * page}
	return r, r.Check()
}

// Check is nil if that may be asked for at once.
func (r Range) Check() error {
	page := uint64(os.Getpagesize())
	if r.Size == 0 || r.Size > MostAtOnce || r.Size%page != 0 || r.Address%page != 0 || r.Address+r.Size < r.Address {
		return fmt.Errorf("%d bytes at %#x of process %d are asked for, want whole pages and at most %d bytes", r.Size, r.Address, r.Process, MostAtOnce)
	}
	return nil
}

// Serve answers a daemon on its connection until it has all that it wants, or has ended: nil. read
// fills a buffer of the range's size; its error ends the connection, and so the daemon.
func Serve(daemon io.ReadWriter, read func(r Range, b []byte) error) error {
	var buffer []byte
	for {
		h, err := readHeader(daemon)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("hear the lazy-pages daemon: %w", err)
		}
		switch h.command & 0xffff {
		case get:
		case done, doneClose:
			if _, err := daemon.Write(make([]byte, 4)); err != nil { // status 0
				return fmt.Errorf("say goodbye to the lazy-pages daemon: %w", err)
			}
			continue // until it has closed its end
		default:
			return fmt.Errorf("the lazy-pages daemon says %#x, which is no word of CRIU 4.2's", h.command)
		}
		r, err := h.wants()
		if err != nil {
			return fmt.Errorf("the lazy-pages daemon: %w", err)
		}
		if buffer, err = answer(daemon, h, r, buffer, read); err != nil {
			return err
		}
	}
}

// answer reads first: half an answer would be of no use.
func answer(daemon io.Writer, h header, r Range, buffer []byte, read func(r Range, b []byte) error) ([]byte, error) {
	if need := headerSize + int(r.Size); cap(buffer) < need {
		buffer = make([]byte, need)
	}
	b := buffer[:headerSize+r.Size]
	if err := read(r, b[headerSize:]); err != nil {
		return buffer, err
	}
	clear(b[:headerSize])
	binary.NativeEndian.PutUint32(b[0:], addFlagged|present<<16)
	binary.NativeEndian.PutUint64(b[8:], h.pages)
	binary.NativeEndian.PutUint64(b[16:], h.address)
	binary.NativeEndian.PutUint64(b[24:], h.process)
	if _, err := daemon.Write(b); err != nil {
		return buffer, fmt.Errorf("give memory to the lazy-pages daemon: %w", err)
	}
	return buffer, nil
}
