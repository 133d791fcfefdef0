package contention

import (
	"errors"

	"github.com/cilium/ebpf"
)

// batch is room for what one system call gives of a hash table that has a value for each CPU. It
// is used again: a reading is taken every second.
type batch[K, V any] struct {
	keys   []K
	values []V // of the first key on all CPUs, of the second, ...
}

// batchSize is how many entries are read at once. The kernel takes no fewer than what falls into
// one bucket.
const batchSize = 256

func newBatch[K, V any](cpus int) batch[K, V] {
	return batch[K, V]{make([]K, batchSize), make([]V, batchSize*cpus)}
}

// inBatches goes through a table; one of the values that take was given must not be kept.
func inBatches[K, V any](table *ebpf.Map, b *batch[K, V], take func(key K, perCPU []V)) error {
	cpus := len(b.values) / len(b.keys)
	for cursor := new(ebpf.MapBatchCursor); ; {
		n, err := table.BatchLookup(cursor, b.keys, b.values, nil)
		for i, key := range b.keys[:n] {
			take(key, b.values[i*cpus:(i+1)*cpus])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
