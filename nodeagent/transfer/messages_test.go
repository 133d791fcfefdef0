package transfer

import (
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
)

func testBegin(total, ahead uint64) *agentv1.Begin {
	return &agentv1.Begin{
		Namespace: "default", Migration: "web-1", MigrationUid: "uid-1", Epoch: 3, TotalBytes: total, AheadBytes: ahead,
	}
}

func begin(total uint64) *agentv1.PutRequest {
	return &agentv1.PutRequest{Part: &agentv1.PutRequest_Begin{Begin: testBegin(total, 0)}}
}

func beginAhead(total, ahead uint64) *agentv1.PutRequest {
	return &agentv1.PutRequest{Part: &agentv1.PutRequest_Begin{Begin: testBegin(total, ahead)}}
}

// chunk is a true one, not compressed.
func chunk(name string, offset uint64, content string) *agentv1.PutRequest {
	sum := root(leaves([]byte(content)))
	return &agentv1.PutRequest{Part: &agentv1.PutRequest_Chunk{Chunk: &agentv1.Chunk{
		File: name, Offset: offset, Size: uint32(len(content)), Sha256: sum[:], Data: []byte(content),
	}}}
}

func forged(req *agentv1.PutRequest, change func(*agentv1.Chunk)) *agentv1.PutRequest {
	change(req.GetChunk())
	return req
}

func blocks(content []byte) *agentv1.PutRequest {
	return &agentv1.PutRequest{Part: &agentv1.PutRequest_Blocks{Blocks: &agentv1.Blocks{Count: uint32(len(content) / block), Data: content}}}
}

// naming has every whole block of a chunk come from what came ahead.
func naming(req *agentv1.PutRequest) *agentv1.PutRequest {
	return forged(req, func(c *agentv1.Chunk) {
		n := blocksOf(int(c.Size))
		c.Known = newBitmap(n)
		for i, sum := range leaves(c.Data) {
			bitmap(c.Known).set(i)
			c.Digests = append(c.Digests, sum[:]...)
		}
		c.Data = nil
	})
}

func changed(req *agentv1.PutRequest, change func(*agentv1.Begin)) *agentv1.PutRequest {
	change(req.GetBegin())
	return req
}

// files is a true manifest of pairs of names and contents.
func files(pairs ...string) []*agentv1.FileDigest {
	var all []*agentv1.FileDigest
	for i := 0; i < len(pairs); i += 2 {
		sum := treeOf([]byte(pairs[i+1]))
		all = append(all, &agentv1.FileDigest{Name: pairs[i], Size: uint64(len(pairs[i+1])), Sha256: sum[:]})
	}
	return all
}

func treeOf(content []byte) digest {
	var sums []digest
	for c := range slices.Chunk(content, int(chunkSize)) {
		sums = append(sums, root(leaves(c)))
	}
	return root(sums)
}

func forgedFile(f []*agentv1.FileDigest, change func(*agentv1.FileDigest)) []*agentv1.FileDigest {
	change(f[0])
	return f
}

type messages = []*agentv1.PutRequest

// whole is a chunk's content that is all one byte.
func whole(c string) string { return strings.Repeat(c, int(chunkSize)) }

func page4(c string) string { return strings.Repeat(c, block) }

func zstdOf(b []byte) []byte {
	e, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return e.EncodeAll(b, nil)
}

// as has a chunk's data be something else by a codec.
func as(codec agentv1.Codec, data []byte) *agentv1.PutRequest {
	return forged(chunk("a", 0, "x"), func(c *agentv1.Chunk) { c.Codec, c.Data = codec, data })
}
