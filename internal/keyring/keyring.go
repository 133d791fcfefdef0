// Package keyring holds the list of keys that encrypt gossip, as it stands in the Secret
// drover-gossip and in the file that is mounted from it.
package keyring

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Keys are those of the gossip: all of them are taken in, the first is sent with.
type Keys [][]byte

// Max bounds how many are tried on each packet.
const Max = 4

// Parse reads a list of keys, one in a line, each of 16, 24 or 32 bytes in base64. Its
// errors tell nothing of a key.
func Parse(text []byte) (Keys, error) {
	var keys Keys
	for _, line := range strings.Fields(string(text)) {
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil {
			return nil, fmt.Errorf("key %d is not base64", len(keys)+1)
		}
		keys = append(keys, key)
	}
	return keys, keys.Validate()
}

// Validate says what is wrong with them.
func (ks Keys) Validate() error {
	if len(ks) == 0 || len(ks) > Max {
		return fmt.Errorf("%d gossip keys, want 1 to %d", len(ks), Max)
	}
	for i, key := range ks {
		if n := len(key); n != 16 && n != 24 && n != 32 {
			return fmt.Errorf("gossip key %d has %d bytes, want 16, 24 or 32", i+1, n)
		}
		if ks[:i].Has(key) {
			return fmt.Errorf("gossip key %d is there twice", i+1)
		}
	}
	return nil
}

// Has tells whether the key is among them.
func (ks Keys) Has(key []byte) bool {
	return slices.ContainsFunc(ks, func(k []byte) bool { return bytes.Equal(k, key) })
}

// Text is what Parse reads.
func (ks Keys) Text() []byte {
	var b bytes.Buffer
	for _, key := range ks {
		b.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	}
	return b.Bytes()
}

// Name names a key without telling it: the first four bytes of the SHA-256 of a random key.
func Name(key []byte) string {
	sum := sha256.Sum256(append([]byte("drover gossip key name\x00"), key...))
	return hex.EncodeToString(sum[:4])
}

// Names gives the names of the keys, in their order.
func (ks Keys) Names() []string {
	names := make([]string, len(ks))
	for i, key := range ks {
		names[i] = Name(key)
	}
	return names
}

// Load reads the file with the keys.
func Load(path string) (Keys, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the gossip keys: %w", err)
	}
	keys, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("the gossip keys in %s: %w", path, err)
	}
	return keys, nil
}
