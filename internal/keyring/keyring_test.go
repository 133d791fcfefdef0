package keyring

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
)

var oldKey, newKey = bytes.Repeat([]byte("o"), 32), bytes.Repeat([]byte("n"), 32)

func TestParse(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString
	secret := b64([]byte("hush"))
	for name, c := range map[string]struct{ text, want string }{
		"one":        {b64(oldKey), ""},
		"two":        {b64(newKey) + "\n" + b64(oldKey) + "\n", ""},
		"none":       {"\n", "0 gossip keys"},
		"too many":   {strings.Repeat(b64(oldKey)+"\n", Max+1), "5 gossip keys"},
		"twice":      {b64(oldKey) + "\n" + b64(oldKey), "key 2 is there twice"},
		"short":      {secret, "key 1 has 4 bytes"},
		"not base64": {b64(oldKey) + "\n!" + secret, "key 2 is not base64"},
	} {
		keys, err := Parse([]byte(c.text))
		switch {
		case c.want == "":
			if back, again := Parse(keys.Text()); err != nil || again != nil || len(back) != len(keys) || !bytes.Equal(back[0], keys[0]) {
				t.Errorf("%s: %v, and again %v", name, err, again)
			}
		case err == nil || !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: error %v, want …%s…", name, err, c.want)
		case strings.Contains(err.Error(), secret):
			t.Errorf("%s: the error tells the key: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(base64.StdEncoding.EncodeToString(oldKey)))
	f.Add([]byte("AAAA\nAAAA"))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(keys.Text()); err != nil || !bytes.Equal(again.Text(), keys.Text()) {
			t.Errorf("%q is read as %d keys, and those as others: %v", text, len(keys), err)
		}
	})
}
