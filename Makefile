# The gate is a Go program, so that it runs where there is no make; the targets
# here are short names for it and for what one needs while working.

GO ?= go
FUZZTIME ?= 60s
N ?= 200
MINUTES ?= 10
PINS := -modfile=tools/pins/go.mod

.DEFAULT_GOAL := help
.PHONY: help build test race lint fmt gen check fuzz crash power-cuts scan sim ringmodel nemesis planted bench bench-compare bench-recover repair-bench repair-proof hints-proof grow-proof churn-proof sleep-proof e2e

help: ## print this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the binary into bin/
	$(GO) build -o bin/pairdb ./cmd/pairdb

image: ## build the container image, named $PAIRDB_IMAGE or pairdb
	$(GO) run ./tools/image

test: ## run all tests
	$(GO) test ./...

race: ## run the tests in one process under the race detector, but for long ones of one goroutine
	$(GO) run ./tools/check -only race

lint: ## formatting, vet, staticcheck, seams, tidy modules
	$(GO) run ./tools/check -only format,vet,staticcheck,seams,tidy

fmt: ## format all code
	$(GO) tool $(PINS) gofumpt -w .

gen: ## generate code and reference files, and record additions to the wire contract
	$(GO) generate ./api
	$(GO) test -count=1 ./api ./api/errcode ./node/config -update
	$(GO) test -count=1 -run ReferenceIsCurrent ./node ./cmd/pairdb -update

check: ## the gate: everything that has to hold before a change goes in
	$(GO) run ./tools/check

fuzz: ## run each fuzz target for FUZZTIME (60s)
	$(GO) run ./tools/check -only fuzz -fuzztime $(FUZZTIME)

# It stops at 100,000 crash points of the whole engine; PAIRDB_CRASH_SEED=n begins
# with the n-th seed, for more of them or to go on with a run that was broken off.
crash: ## crash, fail, stall and damage the storage engine at every call and byte, in memory and at real system calls, at length
	PAIRDB_CRASH_FULL=1 nice -n 15 $(GO) test -count=1 -timeout 6h -v -run 'Crash|Fault|Stall|Damage|FailedSync' ./engine/...

power-cuts: ## cut the power of a loop disk under the engine N (200) times, as root; about a second each
	PAIRDB_POWER_CUTS=$(N) $(GO) test -count=1 -timeout 12h -v -run PowerCuts ./engine/kerneltest

sim: ## simulate whole clusters for MINUTES (10), on from where the ledger in docs/evidence ends
	$(GO) run ./tools/sim -minutes $(MINUTES)

ringmodel: ## play 100,000 schedules of changes of the ring, on from where the ledger in docs/evidence ends (25 min)
	nice $(GO) run ./tools/ringmodel -minutes 600

nemesis: ## kill, stop and cut off real processes under load for MINUTES (10), as root, on from where the ledger in docs/evidence ends
	$(GO) run ./tools/nemesis -minutes $(MINUTES)

planted: ## plant bugs one at a time and see which test catches each (10 min)
	$(GO) run ./tools/planted

bench: ## run the benchmarks of all packages
	$(GO) test -run '^$$' -bench . -benchmem ./...

bench-compare: ## compare the engine with Pebble, Badger, goleveldb and RocksDB (1.5 h, needs librocksdb-dev)
	cd tools/enginebench && CGO_ENABLED=1 $(GO) build -tags rocksdb -o ../../bin/enginebench .
	bin/enginebench compare -dir $${TMPDIR:-/tmp}/enginebench -rounds 3

bench-recover: ## time recovery from 10 GB of log, and opening 1,000 tables
	cd tools/enginebench && $(GO) build -o ../../bin/enginebench .
	bin/enginebench recover -dir $${TMPDIR:-/tmp}/enginebench -gb 10

repair-bench: ## compare three copies of a million keys, of which one lacks 1,000, and then equal ones (5 min)
	PAIRDB_REPAIR_KEYS=$${PAIRDB_REPAIR_KEYS:-1000000} $(GO) test -count=1 -timeout 30m -v -run '^TestRoundsOverStores$$' ./node/replica

e2e: ## run the tests of real processes and of real file systems that fail
	$(GO) test -count=1 -timeout 30m -v ./cmd/pairdb/e2e ./engine/kerneltest

scan: ## scan a million keys under writes, with a node killed in the middle (5 min)
	PAIRDB_SCAN_KEYS=1000000 $(GO) test -count=1 -timeout 1h -v -run TestScanUnderWrites ./cmd/pairdb/e2e

repair-proof: ## of a million keys at three processes let 1,000 differ at one, mend them under load, and compare equal ones (5 min)
	PAIRDB_REPAIR_KEYS=$${PAIRDB_REPAIR_KEYS:-1000000} $(GO) test -count=1 -timeout 1h -v -run '^TestRoundsOfProcesses$$' ./cmd/pairdb/e2e

hints-proof: ## have one of three processes away under load for ten minutes, and see what it lacks a minute after its return (12 min)
	PAIRDB_HINTS_AWAY=$${PAIRDB_HINTS_AWAY:-10m} $(GO) test -count=1 -timeout 1h -v -run '^TestHints$$' ./cmd/pairdb/e2e

grow-proof: ## have three nodes join three with 2 GiB at once under load, and then one with 2 GiB grow to two and three (half an hour or more)
	PAIRDB_GROW_MIB=$${PAIRDB_GROW_MIB:-2048} $(GO) test -count=1 -timeout 90m -v -run '^(TestThreeJoinAtOnce|TestOneGrowsByLoad)$$' ./cmd/pairdb/e2e

churn-proof: ## have clusters of five grow to seven and shrink to four under load and faults for MINUTES (10), as root, from SEED (1) on
	$(GO) test -count=1 -timeout 12h -v -run '^TestChurn$$' ./cmd/pairdb/e2e -churn.for=$(MINUTES)m -churn.first=$${SEED:-1}

sleep-proof: ## stop a coordinator for MINUTES through a change of the ring, and use it once it is awake
	$(GO) test -count=1 -timeout 12h -v -run '^TestCoordinatorSleepsThroughChange$$' ./cmd/pairdb/e2e -sleep.for=$(MINUTES)m

docker: ## run the tests of image and compose cluster against a Docker engine
	$(GO) run ./tools/check -only docker
