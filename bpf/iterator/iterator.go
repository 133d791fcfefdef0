// Package iterator runs eBPF programs that visit every object of a kind, when user space asks.
package iterator

import (
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Run lets an iterator that writes nothing visit all of its objects once.
func Run(i *link.Iter) error {
	r, err := i.Open()
	if err != nil {
		return fmt.Errorf("open a BPF iterator: %w", err)
	}
	for err = unix.EAGAIN; errors.Is(err, unix.EAGAIN); { // after every million of objects
		_, err = io.Copy(io.Discard, r)
	}
	return errors.Join(err, r.Close())
}
