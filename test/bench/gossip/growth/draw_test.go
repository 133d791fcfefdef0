package growth

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"testing"
)

// The drawing in docs is what the program makes of the data beside it.
func TestDrawingIsOfItsData(t *testing.T) {
	const dir = "../../../../docs/gossip/"
	b, err := os.ReadFile(dir + "growth.json")
	if err != nil {
		t.Fatal(err)
	}
	var g Growth
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	want, err := Draw(g)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(dir + "growth.svg")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/gossip/growth.svg is not what its data give: run the part figures of make bench-gossip")
	}
	for d := xml.NewDecoder(bytes.NewReader(got)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
