package gossip

import "time"

// allowance bounds how much one node can say anew, whatever it is: everybody verifies it, keeps it and
// passes it on. What is beyond is dropped as if the network had lost it; the newest of it comes by
// comparing when there is room again.
type allowance struct {
	left   int // bytes
	filled time.Time
}

const (
	// saidAtOnce is more than all that a node may have others keep: 3 times 256 parts and 2,048 places.
	saidAtOnce = 4 << 20
	// saidRate is a second's: 95 loads, or 22 full packets.
	saidRate = 32 << 10
	// saidEach is what verifying a record counts for, beside its bytes.
	saidEach = 256
)

// allows tells whether there is room for a record.
func (a *allowance) allows(raw []byte, now time.Time) bool {
	const whole = saidAtOnce / saidRate * time.Second
	if d := min(passed(a.filled, now), whole); d > 0 {
		a.left, a.filled = min(saidAtOnce, a.left+int(d*saidRate/time.Second)), now
	}
	return a.left >= len(raw)+saidEach
}

// spend is for a record that was accepted.
func (a *allowance) spend(raw []byte) { a.left -= len(raw) + saidEach }
