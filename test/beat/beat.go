// Package beat is a process whose silence can be measured from outside: every millisecond or so it
// sends a number to a collector, and it has memory of which every page tells whether it is as it
// must be.
package beat

import (
	"encoding/binary"
	"fmt"
)

// Beat is one datagram of a process.
type Beat struct {
	// Name is given to the process by whoever starts it.
	Name uint64
	// Start is random at the process's start: one that started anew has another.
	Start uint64
	// Seq counts from 1.
	Seq uint64
	// Checked is the highest number of a check that was asked for and is done, Damaged how many
	// pages of the memory were not as they must be, over all checks.
	Checked, Damaged uint64
}

// Encode gives the beat as it is sent.
func (b Beat) Encode() []byte {
	data, err := binary.Append(nil, binary.BigEndian, b)
	if err != nil {
		panic(err) // a struct of fixed size
	}
	return data
}

// Decode reads what Encode gave.
func Decode(data []byte) (b Beat, err error) {
	if want := binary.Size(b); len(data) != want {
		return b, fmt.Errorf("beat of %d bytes, want %d", len(data), want)
	}
	_, err = binary.Decode(data, binary.BigEndian, &b)
	return b, err
}
