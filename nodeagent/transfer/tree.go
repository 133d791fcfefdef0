package transfer

import (
	"bytes"
	"crypto/sha256"
)

// digest is a SHA-256: of a block, of the digests of a chunk's blocks, or of the digests of
// a file's chunks. So chunks are verified each for itself, and a file without reading it again.
type digest = [sha256.Size]byte

// block is what zeros and known contents are told by, a page of most machines.
const block = 4096

var (
	zeroBlock  [block]byte
	zeroDigest = sha256.Sum256(zeroBlock[:])
)

// blocksOf is how many blocks a chunk of so many bytes has.
func blocksOf(size int) int { return (size + block - 1) / block }

// chunksOf is how many chunks a file of so many bytes has.
func chunksOf(size uint64) uint64 { return (size + chunkSize - 1) / chunkSize }

// blockAt is block i of a chunk, the last of which may be short.
func blockAt(chunk []byte, i int) []byte { return chunk[i*block : min((i+1)*block, len(chunk))] }

// leaf is the digest of a block, and whether it holds zeros alone.
func leaf(b []byte) (digest, bool) {
	if !bytes.Equal(b, zeroBlock[:len(b)]) {
		return sha256.Sum256(b), false
	}
	if len(b) == block {
		return zeroDigest, true
	}
	return sha256.Sum256(b), true
}

// leaves are the digests of a chunk's blocks.
func leaves(chunk []byte) []digest {
	sums := make([]digest, blocksOf(len(chunk)))
	for i := range sums {
		sums[i], _ = leaf(blockAt(chunk, i))
	}
	return sums
}

// root is the digest over digests.
func root(sums []digest) digest {
	h := sha256.New()
	for i := range sums {
		h.Write(sums[i][:])
	}
	return digest(h.Sum(nil))
}

// bitmap has a bit for each of some things, the lowest first.
type bitmap []byte

func newBitmap(n int) bitmap { return make(bitmap, (n+7)/8) }

func (b bitmap) has(i int) bool { return i/8 < len(b) && b[i/8]&(1<<(i%8)) != 0 }

func (b bitmap) set(i int) { b[i/8] |= 1 << (i % 8) }

// fits tells that it is empty, or as long as n things need and with no bit beyond them.
func (b bitmap) fits(n int) bool {
	if len(b) == 0 {
		return true
	}
	return len(b) == (n+7)/8 && (n%8 == 0 || b[len(b)-1]>>(n%8) == 0)
}
