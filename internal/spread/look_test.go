package spread

import "testing"

func TestLook(t *testing.T) {
	rest := appendRecords(nil, []byte("one"), []byte("two"))
	for kind, want := range map[byte]string{
		kindLeaf: "frames", kindBranch: "frames", kindReceipt: "receipts", kindRefusal: "receipts",
		kindDigest: "digests", kindAnswer: "answers", kindWhole: "answers", kindLast: "answers",
	} {
		f := frame{kind: kind, from: PeerOf("a"), session: 1, number: 1}
		holds := want == "frames" || kind == kindAnswer || kind == kindLast
		if holds {
			f.rest = rest
		}
		what, raws := Look(f.encode())
		if what != want || (len(raws) == 2) != holds {
			t.Errorf("a frame of kind %#x counts as one of %s with %d records, want %s", kind, what, len(raws), want)
		}
	}
	if what, raws := Look([]byte{kindAnswer, 1}); what != "answers" || raws != nil {
		t.Errorf("the beginning of an answer counts as one of %s", what)
	}
	for _, b := range [][]byte{nil, {1, 2, 3}, {0xbf}} {
		if what, raws := Look(b); what != "malformed" || raws != nil {
			t.Errorf("%v counts as one of %s", b, what)
		}
	}
}
