package routetime

import (
	"bytes"
	"net"
	"testing"
	"time"
)

// The filter lets pass what Parse takes, of both address families, and drops and counts what
// is no packet by its length and beginning.
func TestFilter(t *testing.T) {
	for _, network := range []string{"127.0.0.1:0", "[::1]:0"} {
		address, err := net.ResolveUDPAddr("udp", network)
		if err != nil {
			t.Fatal(err)
		}
		to, err := net.ListenUDP("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer to.Close()
		if err := Filter(to); err != nil {
			t.Fatal(err)
		}
		from, err := net.DialUDP("udp", nil, to.LocalAddr().(*net.UDPAddr))
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		good := Packet{Kind: AnsweredByUser, Nonce: 1<<64 - 1, Sequence: 5}.Append(nil)
		spoilt := func(i int) []byte { b := bytes.Clone(good); b[i]++; return b }
		bad := [][]byte{{}, good[:PacketSize-1], append(bytes.Clone(good), 0), spoilt(0), spoilt(3), spoilt(4)}
		for _, b := range append(bad, good) {
			if _, err := from.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		if err := to.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		n, _, err := to.ReadFromUDP(buf)
		if err != nil || !bytes.Equal(buf[:n], good) {
			t.Errorf("%s: got %x (%v), want the packet %x first", network, buf[:n], err, good)
		}
		if got, err := Dropped(to); err != nil || got != uint64(len(bad)) {
			t.Errorf("%s: %d dropped (%v), want %d", network, got, err, len(bad))
		}
	}
}
