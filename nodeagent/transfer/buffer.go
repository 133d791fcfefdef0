package transfer

import "sync"

// buffer holds a chunk. They are used again: memory that was not touched lately is slow.
type buffer struct{ bytes []byte }

var buffers = sync.Pool{New: func() any { return &buffer{make([]byte, chunkSize)} }}

func takeBuffer() *buffer { return buffers.Get().(*buffer) }

func (b *buffer) free() { buffers.Put(b) }
