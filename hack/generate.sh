#!/bin/sh
# Makes all generated code anew. Needs protoc, and clang for the eBPF objects; the Go
# tools come pinned from go.mod.
set -eu
cd "$(dirname "$0")/.."
for c in protoc clang-14; do
	command -v $c >/dev/null || { echo "generate: $c is missing: apt-get install protobuf-compiler clang-14 llvm-14" >&2; exit 1; }
done
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
go build -o "$tools/" google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
PATH="$tools:$PATH" protoc --go_out=. --go_opt=paths=source_relative \
	--go-grpc_out=. --go-grpc_opt=paths=source_relative api/agent/v1/agent.proto api/agent/v1/memory.proto
go tool controller-gen object paths=./api/...
go tool controller-gen crd:maxDescLen=200 paths=./api/v1alpha1 output:crd:dir=manifests/drover/crds
# A time may have any number of digits after the point, and conditions' have no markers of ours.
sed -i 's/^\( *\)format: date-time$/&\n\1maxLength: 64/' manifests/drover/crds/drover.dev_podmigrations.yaml
go generate ./bpf/... ./test/bench/measure/truth
go run ./hack/dashboards/cmd/dashboards
