package beat

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestDecode(t *testing.T) {
	b := Beat{Name: 1, Start: 2, Seq: 3, Checked: 4, Damaged: 5}
	if got, err := Decode(b.Encode()); err != nil || got != b {
		t.Errorf("got %+v, %v; want %+v", got, err, b)
	}
	if _, err := Decode(b.Encode()[1:]); err == nil {
		t.Error("a datagram that is cut short was taken for a beat")
	}
}

// A page that is damaged, another's, or of an earlier round is found, wherever writing stands.
func TestMemoryCheck(t *testing.T) {
	for _, random := range []float64{0, .3, 1} {
		for _, written := range []int{0, 1, 100, 256, 300} { // 256 pages are a round
			m, err := NewMemory(1, random)
			if err != nil {
				t.Fatal(err)
			}
			old := append([]uint64(nil), m.page(50)...)
			m.Write(written)
			if n := m.Check(); n != 0 {
				t.Fatalf("random %g, %d pages written: %d damaged, want none", random, written, n)
			}
			m.page(7)[511]++
			copy(m.page(8), m.page(9))
			want := 2
			if written > 50 {
				copy(m.page(50), old)
				want++
			}
			if n := m.Check(); n != want {
				t.Errorf("random %g, %d pages written: %d damaged, want %d", random, written, n, want)
			}
		}
	}
}

var began = time.Unix(0, 0)

// heard is beats at so many ms from an address; the numbers go on from seq.
func heard(from string, seq uint64, ms ...int) (all []Heard) {
	for i, at := range ms {
		all = append(all, Heard{Beat{Seq: seq + uint64(i)}, netip.AddrPortFrom(netip.MustParseAddr(from), 1), began.Add(time.Duration(at) * time.Millisecond)})
	}
	return all
}

func TestPassed(t *testing.T) {
	const a, b = "10.0.0.1", "10.0.0.2"
	join := func(parts ...[]Heard) (all []Heard) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	for _, test := range []struct {
		name string
		all  []Heard
		gap  time.Duration
		lost int
		ok   bool
	}{
		{"nothing", nil, 0, 0, false},
		{"stayed", heard(a, 1, 0, 1, 2), 0, 0, false},
		// 1, 2, 3 at 0, 1, 2 ms; 4 at 50 ms from the other.
		{"moved", join(heard(a, 1, 0, 1, 2), heard(b, 4, 50, 51)), 48 * time.Millisecond, 0, true},
		// Copied after 2; the source sent 3 and 4, which the copy does not have.
		{"copied while it ran on", join(heard(a, 1, 0, 1, 20, 21), heard(b, 3, 50, 51)), 49 * time.Millisecond, 2, true},
		{"began anew", join(heard(a, 1, 0, 1), heard(b, 1, 50)), 0, 2, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, ok := Passed(test.all)
			if ok != test.ok || c.Lost != test.lost || ok && c.Gap() != test.gap {
				t.Errorf("got gap %v, %d lost, %v; want %v, %d, %v", c.Gap(), c.Lost, ok, test.gap, test.lost, test.ok)
			}
		})
	}
}

func TestSilence(t *testing.T) {
	all := heard("10.0.0.1", 1, 0, 100, 101, 131, 132)
	all = append(all, heard("10.0.0.2", 6, 900, 901)...)
	for since, want := range map[time.Duration]time.Duration{
		0:                      100 * time.Millisecond,
		100 * time.Millisecond: 30 * time.Millisecond,
		200 * time.Millisecond: 0,
	} {
		got, end := Silence(all, began.Add(since))
		if got != want || want == 30*time.Millisecond && end.Seq != 4 {
			t.Errorf("since %v: got %v until beat %d, want %v", since, got, end.Seq, want)
		}
	}
}

func TestSlow(t *testing.T) {
	// Of ten beats in 10 ms, those at 6 to 9 ms are not there; what came before and from elsewhere does not count.
	all := append(heard("10.0.0.1", 1, 98, 99), heard("10.0.0.2", 3, 100, 101, 102, 103, 104, 105, 110, 111)...)
	if got := Slow(all, all[2], 10*time.Millisecond, time.Millisecond); got != 4*time.Millisecond {
		t.Errorf("got %v, want 4 ms", got)
	}
}

// The collector asks until it is answered, at the address that the process has then.
func TestCollector(t *testing.T) {
	listen := func() net.PacketConn {
		conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ear, mouth := listen(), listen()
	c := NewCollector(ear)
	go c.Run()
	for seq := range uint64(3) {
		mouth.WriteTo(Beat{Name: 9, Seq: seq + 1}.Encode(), ear.LocalAddr())
	}
	if _, err := c.Await(ctx, 9, "beat 3", func(h Heard) bool { return h.Seq == 3 }); err != nil {
		t.Fatal(err)
	}
	go func() {
		request := make([]byte, 8)
		mouth.ReadFrom(request)
		mouth.WriteTo(Beat{Name: 9, Seq: 4, Checked: binary.BigEndian.Uint64(request), Damaged: 2}.Encode(), ear.LocalAddr())
	}()
	if n, err := c.Check(ctx, 9); n != 2 || err != nil {
		t.Errorf("check: %d damaged, %v; want 2", n, err)
	}
	if n := len(c.Of(9)); n != 4 {
		t.Errorf("%d beats heard, want 4", n)
	}
	c.Forget(9)
	if n := len(c.Of(9)); n != 0 {
		t.Errorf("%d beats after they were forgotten", n)
	}
}
