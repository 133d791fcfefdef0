package gossiptest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"testing"
)

// sealed is a packet as version 1 of memberlist's encryption makes it.
func sealed(t *testing.T, key, plain []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := []byte("twelve bytes")
	return gcm.Seal(append([]byte{1}, nonce...), nonce, plain, nil)
}

func TestKindsOfAPacketAddUp(t *testing.T) {
	key := []byte("0123456789abcdef")
	k, err := NewKinds(key, func(b []byte, add func(string, int)) {
		if !bytes.Equal(b, []byte("hello")) {
			t.Errorf("the message is %q", b)
		}
		add("greeting", len(b))
	})
	if err != nil {
		t.Fatal(err)
	}
	ping, user := append([]byte{pingMessage}, make([]byte, 30)...), append([]byte{userMessage}, "hello"...)
	compound := append([]byte{compoundMessage, 2, 0, byte(len(ping)), 0, byte(len(user))}, append(ping, user...)...)
	summed := append([]byte{12, 0, 0, 0, 0}, compound...) // behind a checksum
	for name, plain := range map[string][]byte{"compound": compound, "with a checksum": summed} {
		for how, packet := range map[string][]byte{"plain": plain, "encrypted": sealed(t, key, plain)} {
			got, sum := map[string]int{}, 0
			for _, s := range k.packet(packet) {
				got[s.kind] += s.bytes
				sum += s.bytes
			}
			if got["probes"] != len(ping) || got["greeting"] != 5 || sum != len(packet)+packetHeader {
				t.Errorf("%s, %s: %v of %d bytes", name, how, got, len(packet)+packetHeader)
			}
		}
	}
	for _, cutOff := range [][]byte{nil, {compoundMessage}, {compoundMessage, 9, 0}, {compoundMessage, 1, 255, 255, 0}, {12}} {
		sum := 0
		for _, s := range k.packet(cutOff) {
			sum += s.bytes
		}
		if sum != len(cutOff)+packetHeader {
			t.Errorf("%v: %d bytes counted", cutOff, sum)
		}
	}
}

func TestKindsOfStreams(t *testing.T) {
	key := []byte("0123456789abcdef")
	k, err := NewKinds(key, func(b []byte, add func(string, int)) { add(string(b), len(b)) })
	if err != nil {
		t.Fatal(err)
	}
	user := append([]byte{userMessage, 0x81, 0xaa}, "UserMsgLen\x05hello"...)
	long := append([]byte{userMessage, 0x81, 0xaa}, "UserMsgLen\xcd\x01\x00hello"...)
	for want, plain := range map[string][]byte{"push/pull": {pushPullMessage, 1, 2}, "probes, by stream": {pingMessage, 1}, "hello, by stream": user} {
		framed := append([]byte{encryptMessage, 0, 0, 0, 99}, sealed(t, key, append(plain, make([]byte, 64)...))...)
		if got := k.stream(plain); got != want {
			t.Errorf("a plain stream of %s counts as one of %s", want, got)
		}
		if want == "hello, by stream" {
			continue // what follows would be part of the message
		}
		if got := k.stream(framed); got != want {
			t.Errorf("an encrypted stream of %s counts as one of %s", want, got)
		}
	}
	if got := k.stream(long); got != "hello, by stream" {
		t.Errorf("a long message's stream counts as one of %s", got)
	}
}

// Of a kind that is muted no packet arrives, unless something else is in it.
func TestMutedKinds(t *testing.T) {
	k, err := NewKinds([]byte("0123456789abcdef"), func([]byte, func(string, int)) {})
	if err != nil {
		t.Fatal(err)
	}
	n := NewNetwork(Config{Kinds: k})
	a, b := n.Open(), n.Open()
	ping, alive := []byte{pingMessage, 1, 2}, []byte{4, 1, 2}
	both := append([]byte{compoundMessage, 2, 0, 3, 0, 3}, append(alive, ping...)...)
	arrives := func(packet []byte) bool {
		if _, err := a.WriteTo(packet, b.String()); err != nil {
			t.Fatal(err)
		}
		came := len(b.PacketCh()) > 0
		for len(b.PacketCh()) > 0 {
			<-b.PacketCh()
		}
		return came
	}
	for _, kind := range []string{"", KindMembership, ""} {
		n.Mute(kind)
		if got, want := arrives(alive), kind == ""; got != want {
			t.Errorf("%q is muted, and a packet of %s arrives: %t", kind, KindMembership, got)
		}
		if !arrives(ping) || !arrives(both) {
			t.Errorf("%q is muted, and others are, too", kind)
		}
	}
}
