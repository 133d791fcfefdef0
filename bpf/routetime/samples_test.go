package routetime

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"
)

func TestSamplesDoNotWait(t *testing.T) {
	a, b := vethPair(t)
	ma, mb := a.meter(t, b), b.meter(t, a)
	a.attach(t, ma)
	b.attach(t, mb)
	from := a.socket(t, a.v4)
	if got, err := ma.Samples(); err != nil || len(got) != 0 {
		t.Fatalf("before any probe: %v, %v", got, err)
	}
	for round := range 2 {
		var want []uint64
		for i := range uint64(3) {
			nonce := uint64(round+1)*100 + i
			if err := ma.Expect(nonce, b.v4); err != nil {
				t.Fatal(err)
			}
			send(t, from, b.v4, probe(nonce))
			want = append(want, nonce)
		}
		var got []uint64
		for end := time.Now().Add(patience); len(got) < len(want) && time.Now().Before(end); {
			samples, err := ma.Samples()
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range samples {
				got = append(got, s.Nonce)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("round %d: samples of probes %v, want %v", round, got, want)
		}
	}
	// One who waits is woken as before.
	measure(t, ma, from, b.v4, 1000)
	if err := ma.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ma.Samples(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
