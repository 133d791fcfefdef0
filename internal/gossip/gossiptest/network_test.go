package gossiptest

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// flood sends packets from one port to another and gives when and in which order they came.
func flood(t *testing.T, cfg Config, packets int) (order []byte, took []time.Duration, from, to Traffic) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(cfg)
		a, b := n.Open(), n.Open()
		for i := range packets {
			sent := time.Now()
			if _, err := a.WriteTo([]byte{byte(i)}, b.String()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
			synctest.Wait()
			for len(b.PacketCh()) > 0 {
				p := <-b.PacketCh()
				order, took = append(order, p.Buf[0]), append(took, p.Timestamp.Sub(sent))
			}
		}
		time.Sleep(time.Second)
		for len(b.PacketCh()) > 0 {
			order = append(order, (<-b.PacketCh()).Buf[0])
		}
		from, to = a.Traffic(), b.Traffic()
	})
	return order, took, from, to
}

func TestPacketsArriveAtOnceOnAPlainNetwork(t *testing.T) {
	order, took, from, to := flood(t, Config{}, 100)
	if len(order) != 100 || from.Sent != 100*(1+packetHeader) || to.Received != from.Sent || from.Packets != 100 {
		t.Errorf("%d packets came, %+v sent, %+v received", len(order), from, to)
	}
	for i := range order {
		if order[i] != byte(i) || took[i] != 0 {
			t.Fatalf("packet %d came as number %d after %v", order[i], i, took[i])
		}
	}
}

func TestPacketsAreLostDelayedDuplicatedAndReordered(t *testing.T) {
	const packets = 200
	came := func(cfg Config) (int, bool) {
		cfg.Seed = 7
		order, _, _, to := flood(t, cfg, packets)
		if to.Received != len(order)*(1+packetHeader) {
			t.Errorf("%+v: %d packets came, %d bytes counted", cfg, len(order), to.Received)
		}
		sorted := true
		for i := 1; i < len(order); i++ {
			sorted = sorted && order[i-1] <= order[i]
		}
		return len(order), sorted
	}
	if n, _ := came(Config{Loss: 0.2}); n < packets/2 || n >= packets {
		t.Errorf("with a fifth lost %d of %d came", n, packets)
	}
	if n, _ := came(Config{Duplicated: 0.2}); n <= packets || n > packets*3/2 {
		t.Errorf("with a fifth duplicated %d came of %d", n, packets)
	}
	delayed := Config{MinDelay: time.Millisecond, MaxDelay: 5 * time.Millisecond}
	if n, _ := came(delayed); n != packets {
		t.Errorf("%d of %d came after a delay", n, packets)
	}
	delayed.Reordered = 0.2
	if n, sorted := came(delayed); n != packets || sorted {
		t.Errorf("%d of %d came, in order: %t", n, packets, sorted)
	}
}

// Each link has a delay of its own, within the bounds, that stays.
func TestDelaysAreOfLinks(t *testing.T) {
	n := NewNetwork(Config{Seed: 3, MinDelay: 200 * time.Microsecond, MaxDelay: 5 * time.Millisecond})
	seen := map[time.Duration]bool{}
	ports := []*Port{n.Open(), n.Open(), n.Open(), n.Open()}
	for _, a := range ports {
		for _, b := range ports {
			d := n.delay(a, b)
			if d < n.cfg.MinDelay || d > n.cfg.MaxDelay || d != n.delay(a, b) {
				t.Errorf("delay from %s to %s: %v", a, b, d)
			}
			seen[d] = true
		}
	}
	if len(seen) != len(ports)*len(ports) {
		t.Errorf("%d delays on %d links", len(seen), len(ports)*len(ports))
	}
}

func TestStreamsAreDelayedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(Config{Seed: 3, MinDelay: time.Millisecond, MaxDelay: 5 * time.Millisecond})
		a, b := n.Open(), n.Open()
		begun := time.Now()
		conn, err := a.DialTimeout(b.String(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if took, want := time.Since(begun), n.delay(a, b)+n.delay(b, a); took != want {
			t.Errorf("opened after %v, want a round trip of %v", took, want)
		}
		there := <-b.StreamCh()
		opened := a.Traffic()
		begun = time.Now()
		go func() {
			if _, err := conn.Write(make([]byte, 3000)); err != nil {
				t.Error(err)
			}
			conn.Close()
		}()
		got, err := io.ReadAll(there)
		if err != nil || len(got) != 3000 || time.Since(begun) != n.delay(a, b) {
			t.Errorf("%d bytes after %v, %v; want 3000 after %v", len(got), time.Since(begun), err, n.delay(a, b))
		}
		// ceil(3000 / 1448) = 3 segments
		if sent, received := a.Traffic().Sub(opened).Sent, b.Traffic().Sub(opened).Received; sent != 3000+3*40 || received != sent {
			t.Errorf("sent %d bytes, received %d, want 3120", sent, received)
		}
	})
}

func TestNothingPassesACut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(Config{})
		a, b := n.Open(), n.Open()
		conn, err := a.DialTimeout(b.String(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		n.Cut(func(from, _ *Port) bool { return from == a })
		a.WriteTo([]byte("x"), b.String())
		b.WriteTo([]byte("y"), a.String())
		if len(b.PacketCh()) != 0 || len(a.PacketCh()) != 1 {
			t.Errorf("%d packets passed the cut, %d the other way; want 0 and 1", len(b.PacketCh()), len(a.PacketCh()))
		}
		begun := time.Now()
		var timeout net.Error
		if _, err := a.DialTimeout(b.String(), 3*time.Second); !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(begun) != 3*time.Second {
			t.Errorf("dialled through a cut: %v after %v", err, time.Since(begun))
		}
		begun = time.Now()
		conn.SetDeadline(begun.Add(time.Second))
		if _, err := conn.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != time.Second {
			t.Errorf("written through a cut: %v after %v", err, time.Since(begun))
		}
		b.Crash()
		b.WriteTo([]byte("z"), a.String())
		if len(a.PacketCh()) != 1 {
			t.Error("who is gone still sends")
		}
		if _, err := a.DialTimeout(b.String(), time.Second); err == nil {
			t.Error("who is gone was reached")
		}
	})
}

// What is remembered is the very same key, message and signature.
func TestVerifierBelievesNothingElse(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	v := NewVerifier()
	message := []byte("hello")
	signature := ed25519.Sign(key, message)
	for range 2 {
		if !v.Signature(pub, message, signature) {
			t.Error("a good signature was refused")
		}
		for what, bad := range map[string]bool{
			"another key":       v.Signature(other, message, signature),
			"another message":   v.Signature(pub, []byte("hellp"), signature),
			"another signature": v.Signature(pub, message, append([]byte{signature[0] ^ 1}, signature[1:]...)),
		} {
			if bad {
				t.Errorf("%s was believed", what)
			}
		}
	}
}
