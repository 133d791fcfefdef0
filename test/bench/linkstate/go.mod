// A module of its own: what the benchmark compares with is no dependency of Drover.
module github.com/drover-project/drover/test/bench/linkstate

go 1.26.0

// serf draws from math/rand's own source: it must be possible to seed that.
godebug randseednop=0

require (
	github.com/drover-project/drover v0.0.0
	github.com/hashicorp/serf v0.11.0
)

require (
	github.com/hashicorp/go-immutable-radix v1.3.1 // indirect
	github.com/hashicorp/go-metrics v0.7.0 // indirect
	github.com/hashicorp/golang-lru v1.0.2 // indirect
)

replace github.com/drover-project/drover => ../../..
