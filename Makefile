# Everything that Drover's developers and users run from a checkout.
# Binaries are static; nothing here needs a C compiler (the eBPF objects are committed).
export CGO_ENABLED := 0
# The same for programs, tests and the lab's Kubernetes: nothing is compiled twice.
export GOFLAGS := -trimpath -buildvcs=false
export DROVER_CACHE ?= /var/cache/drover
# Where the tests that need an API server and no nodes find one.
export KUBEBUILDER_ASSETS := $(CURDIR)/out/assets

GO      ?= go
LAB      = $(GO) run ./hack/lab/cmd/lab
# What runs without a cluster and on this machine's kernel; test/e2e brings up its own and comes last.
UNIT     = $$($(GO) list ./... | grep -v -e /test/e2e -e /test/checkpoint -e /test/chaos -e /test/kernels -e /hack/lab$$)

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: prerequisites
prerequisites: ## Install what is needed from Debian (DROVER_NO_INSTALL=1: list it and stop)
	@[ "$$(id -u)" = 0 ] || { echo "prerequisites: must be run as root, is run as $$(id -un): the lab makes namespaces and loads eBPF programs"; exit 1; }
	@$(LAB) prerequisites

.PHONY: build
build: ## Build every program into out/bin
	@mkdir -p out/bin
	$(GO) build -trimpath -ldflags '-s -w' -o out/bin/ ./cmd/...

.PHONY: generate
generate: ## Make generated files anew: protobuf, deepcopy, CRDs, eBPF objects, dashboards, rules (needs clang and protoc)
	hack/generate.sh

.PHONY: verify
verify: generate ## Generate, and fail if anything differs from what is committed
	@git diff --exit-code -- api bpf test/bench manifests/drover docs/metrics.md docs/alerts.md docs/dashboards.md docs/dashboards || \
		{ echo "verify: generated files differ from what is committed: commit the result of 'make generate'"; exit 1; }

.PHONY: lint
lint: ## go vet and gofmt over everything
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "lint: run gofmt -w on:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...

.PHONY: test
test: prerequisites lab-build lint test-unit test-e2e ## Set up, then run every test but test-kernels

.PHONY: test-unit
test-unit: lab-build ## Tests that need no cluster (some load eBPF programs or run CRIU: root)
	$(GO) test -timeout 15m $(UNIT)

.PHONY: test-kernels
test-kernels: prerequisites ## eBPF programs, readers of control groups, and dumps in rounds under Debian's kernels in QEMU, some 25 min (root)
	$(GO) test -count=1 -timeout 90m -v ./test/kernels

.PHONY: test-e2e
test-e2e: lab-build ## Tests on real kubelets in labs of their own (root)
	$(MAKE) -j 2 test-checkpoint test-pictures
	$(GO) test -count=1 -timeout 40m -v -skip TestPicture ./test/e2e ./test/chaos

.PHONY: test-checkpoint
test-checkpoint: ## Dump and restore by real runc and CRIU, and the lab itself (root)
	$(GO) test -count=1 -timeout 30m ./test/checkpoint ./hack/lab

.PHONY: test-pictures
test-pictures: ## What the nodes hold each other for, in a lab of its own: mostly waiting (root)
	$(GO) test -count=1 -timeout 30m -v -run TestPicture ./test/e2e -e2e.lab pictures

.PHONY: chaos
chaos: lab-build ## Every fault at every step of a move, an hour; goes on where it was interrupted; writes docs/chaos.md
	$(GO) test -count=1 -timeout 4h -v ./test/chaos -run TestTable -chaos.table

.PHONY: soak-handoff
soak-handoff: ## 10^6 seeded runs of the hand-over's simulation
	$(GO) test -timeout 3h -run TestSimulation ./internal/handoff -handoff.runs=1000000

.PHONY: test-life
test-life: lab-build ## What the nodes hold each other for: an agent killed, a node cut off, the API server away for two minutes, keys rotated; some 8 min (root)
	$(GO) test -count=1 -timeout 30m -v ./test/e2e -run 'TestPicture|TestKeysAreRotated' -life.outage=2m -life.rotate

# How often "make soak-owners" moves a pod of each kind.
SOAK_MOVES ?= 100

.PHONY: soak-owners
soak-owners: lab-build ## Move a pod of every kind SOAK_MOVES (100) times in a lab; writes out/soak/owners.json
	$(GO) test -count=1 -timeout 6h -parallel 1 -v -run TestSoakOwners ./test/e2e -soak.moves=$(SOAK_MOVES)

# How often "make soak-redis" and "make soak-http" move their server.
MOVES ?= 20

.PHONY: soak-redis
soak-redis: lab-build ## Move Redis MOVES (20) times in a lab while 50 connected clients write; writes out/soak/redis.json
	$(GO) test -count=1 -timeout 2h -v -run TestSoakRedis ./test/e2e -soak.client-moves=$(MOVES)

.PHONY: soak-http
soak-http: lab-build ## Move nginx MOVES (20) times in a lab under keep-alive load through its Service; writes out/soak/nginx.json
	$(GO) test -count=1 -timeout 2h -v -run TestSoakHTTP ./test/e2e -soak.client-moves=$(MOVES)

.PHONY: soak-nodekilled
soak-nodekilled: lab-build ## Kill the node that holds the old addresses of Redis and nginx a minute after their moves, for as long as Kubernetes takes to evict what was there, some 10 min
	$(GO) test -count=1 -timeout 30m -v -run TestSourceNodeKilled ./test/e2e -nodekilled.after=1m -nodekilled.evicted

.PHONY: bench-linkstate
bench-linkstate: ## Computed route times against Vivaldi's coordinates; writes out/bench/linkstate.json
	cd test/bench/linkstate && $(GO) test . && $(GO) run . -out $(CURDIR)/out/bench/linkstate.json

# Pieces of it: make bench-gossip GOSSIP_PARTS=steady,figures GOSSIP_SIZES=100,200
GOSSIP_PARTS ?= steady,baseline,loss,join,partition,hour,swarm,figures
GOSSIP_SIZES ?= 100,200,300,500,1000

.PHONY: bench-gossip
bench-gossip: ## How soon reports reach all nodes and what it costs, in virtual time, beside memberlist's defaults; goes on where it was interrupted; writes out/bench/gossip.json and docs/gossip
	$(GO) test -count=1 -timeout 4h -v -run TestBench ./test/bench/gossip -parts $(GOSSIP_PARTS) -sizes $(GOSSIP_SIZES) \
		-dir $(CURDIR)/out/bench/gossip -out $(CURDIR)/out/bench/gossip.json -docs $(CURDIR)/docs/gossip

.PHONY: docs-plots
docs-plots: ## Draw what the parameters of the ranking do; writes docs/placement
	$(GO) run ./hack/docsplots -out $(CURDIR)/docs/placement

.PHONY: dashboards
dashboards: ## Make the chart's dashboards and rules, the list of metrics, the runbook and the pictures of docs/dashboards
	$(GO) run ./hack/dashboards/cmd/dashboards

.PHONY: docs-dashboards
docs-dashboards: lab-build ## Run every query of the dashboards and rules in a lab; writes docs/dashboards (root)
	$(GO) test -count=1 -timeout 20m -v ./test/e2e -run TestDashboardsAndRulesHaveData -dashboards.out=$(CURDIR)/docs/dashboards
	$(GO) run ./hack/dashboards/cmd/dashboards

.PHONY: bench-badinput
bench-badinput: ## 10^6 truncated, oversized, replayed and forged datagrams at a node: nothing changes, and what it costs (root)
	$(GO) test -count=1 -timeout 30m -v ./test/bench/measure/badinput -badinput.datagrams=1000000

# Pieces of it: make bench-measure MEASURE_ARGS='-parts cost -loads nginx,redis -runs 12'
MEASURE_ARGS ?=

.PHONY: bench-measure
bench-measure: lab-build ## Route times against the kernel's truth, what measuring costs, who is named as aggressor: 40 min on a quiet machine; writes out/bench/measure.json
	$(GO) run ./test/bench/measure -out $(CURDIR)/out/bench/measure.json $(MEASURE_ARGS)

# Pieces of it: make bench-scheduler SCHEDULER_ARGS='-nodes 1000 -pods 300 -rounds 1'
SCHEDULER_ARGS ?=

.PHONY: bench-scheduler
bench-scheduler: lab-build ## What RouteTime costs kube-scheduler, beside other plugins, against a real kube-apiserver, some 40 min on a quiet machine; writes out/bench/scheduler.json
	$(GO) run ./test/bench/scheduler -out $(CURDIR)/out/bench/scheduler.json $(SCHEDULER_ARGS)

# Pieces of it: make bench-outcome OUTCOME_ARGS='-cost 500us -seeds 3'
OUTCOME_ARGS ?=

.PHONY: bench-outcome
bench-outcome: lab-build ## How long users wait for a chain of services that RouteTime, others and oracles place in 20 worlds, by a model that is held against a lab, some 15 min on a quiet machine; goes on where its lab was interrupted; writes out/bench/outcome.json
	$(GO) run ./test/bench/outcome -out $(CURDIR)/out/bench/outcome.json $(OUTCOME_ARGS)

.PHONY: bench-dirty
bench-dirty: prerequisites ## For how long a container stands still for a dump where the kernel tracks what it writes to, beside a dump of all, on a kernel in QEMU; writes out/bench/dirty.json (root)
	$(GO) test -count=1 -timeout 30m -v ./test/kernels -run TestFrozen -args -kernels.bench $(CURDIR)/out/bench/dirty.json

# Pieces of it: make bench-migrate MIGRATE_ARGS='-sizes 16,64 -rounds 1 -sides drover,bare'. What bench-dirty has found goes with it.
MIGRATE_ARGS ?=
DIRTY_FIGURES := $(CURDIR)/out/bench/dirty.json

.PHONY: bench-migrate
bench-migrate: lab-build ## For how long a process is not felt to run when it moves, beside the standard path, a new start and bare CRIU, some 30 min on a quiet machine; writes out/bench/migrate.json
	$(GO) run ./test/bench/migrate -out $(CURDIR)/out/bench/migrate.json $(if $(wildcard $(DIRTY_FIGURES)),-dirty-tracking $(DIRTY_FIGURES)) $(MIGRATE_ARGS)

.PHONY: lab-build
lab-build: prerequisites ## Build or reuse what the lab needs, outside the checkout
	$(LAB) build
	@mkdir -p $(KUBEBUILDER_ASSETS)
	@for layer in $$($(LAB) build); do for f in usr/local/bin/kube-apiserver usr/bin/etcd; do \
		if [ -e $$layer/$$f ]; then ln -sf $$layer/$$f $(KUBEBUILDER_ASSETS)/; fi; done; done

.PHONY: lab
lab: prerequisites ## Bring up a lab named drover with Drover in it, and leave it up
	$(GO) run ./hack/demo -keep -setup-only

.PHONY: demo
demo: prerequisites ## Set up, then the main job: place, starve, notice, move, tell
	$(GO) run ./hack/demo
