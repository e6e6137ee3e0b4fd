# make build      bin/holdfast
# make run        a whole cluster in ./data
# make test       everything that has to pass, at most 20 minutes on 2 cores
# make test-loop  the parts that depend on the event loop, on the one that HOLDFAST_LOOP names (uring, portable), or on both
# make test-cluster  every fault on real processes once
# make test-scenarios  what Vitastor's own tests ask of a cluster, on real processes
# make test-long  the long tests, one part at a time: make test-long PART=fuzz
# make sim        simulated clusters under faults: make sim SEEDS=100 [FROM=1]; make sim SEED=7 replays one with its event log
# make sim-shrink a shorter schedule of a seed that still fails: make sim-shrink SEED=7
# make crash      what loss of power leaves of a store: STATES crashed disks (5000) drawn from SEED (1), or the one that STATE names
# make planted    bugs put into the data path on purpose (core/planted): each must be caught in a minute; PLANTED=-update writes them to docs/proof.md
# make bench      measurements, beside fio on the same file

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build
.PHONY: build run test lint test-setup test-unit test-proofs test-processes test-cluster test-scenarios test-loop test-long sim sim-test sim-shrink crash planted bench clean

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GO ?= go
RUN_FLAGS ?=
# Tests that need processors, in one process; the other packages of tests/ run real processes, and wait for most of their time.
PROOFS := crash|planted|rooms|sim
tests = $$($(GO) list ./tests/... | grep $(1) '^holdfast/tests/($(2))(/|$$)')
UNITS = $$($(GO) list ./... | grep -v '^holdfast/tests/')

build: bin/holdfast

# go build decides what has to be built.
.PHONY: bin/holdfast
bin/holdfast: | go
	$(GO) build -trimpath -ldflags "-X holdfast/appliance/cli.Version=$(VERSION)" -o $@ ./appliance/holdfast

.PHONY: go
go:
	@command -v $(GO) >/dev/null || { echo "Go is missing: install Go $$(sed -n 's/^go //p' go.mod) or newer from https://go.dev/dl/" >&2; exit 1; }

run: build
	exec bin/holdfast up --dir ./data $(RUN_FLAGS)

test-setup: | go
	tests/setup.sh

lint: | go
	@out=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); if [ -n "$$out" ]; then echo "not formatted by gofmt:" $$out >&2; exit 1; fi
	$(GO) vet ./...
	$(GO) tool -modfile=packaging/tools.mod staticcheck ./...

test-unit: | go
	$(GO) test -race -shuffle=on -timeout 10m $(UNITS)

# Every fault on real processes once; prints the longest time without I/O of each.
test-cluster: test-setup build
	HOLDFAST_TEST_BINARY=$(CURDIR)/bin/holdfast $(GO) test -count=1 -timeout 15m -v ./tests/cluster

# The scenarios of tests/scenarios, two at a time.
test-scenarios: test-setup build
	HOLDFAST_TEST_BINARY=$(CURDIR)/bin/holdfast $(GO) test -count=1 -timeout 15m ./tests/scenarios

test-proofs: | go
	$(GO) test -timeout 20m $(call tests,-E,$(PROOFS))

test-processes: test-setup build
	HOLDFAST_TEST_BINARY=$(CURDIR)/bin/holdfast $(GO) test -timeout 20m -p 1 $(call tests,-vE,$(PROOFS)|cluster|scenarios)

# The tests of real processes come last, two at a time, and print Go's own closing lines.
test: test-setup lint build test-unit sim-test test-proofs
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-processes test-cluster test-scenarios

# What runs in the simulator does not depend on the loop.
LOOPS = $(if $(HOLDFAST_LOOP),$(HOLDFAST_LOOP),uring portable)

test-loop: test-setup build
	for loop in $(LOOPS); do \
		echo "event loop: $$loop"; \
		HOLDFAST_LOOP=$$loop HOLDFAST_TEST_BINARY=$(CURDIR)/bin/holdfast $(GO) test -count=1 -timeout 20m -p 1 ./core/loop/... ./core/peer/... ./core/blocking/... ./osd/... ./frontends/... ./appliance/... \
			$(call tests,-vE,$(PROOFS)); \
	done

# Simulated clusters (tests/sim). The first SEEDS from FROM on, or one SEED with a readable event log (FAULTS and OPS leave only those in, LOG is the
# level of what its processes log). DRAW is that of a seed from before the lists of configurations and faults grew.
SEEDS ?= 100
FROM ?= 1
SEED ?=
LOG ?= info
SIMULATE = $(GO) run ./tests/sim/simulate

sim: | go
ifeq ($(SEED),)
	$(SIMULATE) -seeds $(SEEDS) -from $(FROM) $(if $(DRAW),-draw $(DRAW))
else
	$(SIMULATE) -seed $(SEED) $(if $(DRAW),-draw $(DRAW)) -log $(LOG) $(if $(FAULTS),-faults $(FAULTS)) $(if $(OPS),-ops $(OPS))
endif

sim-shrink: | go
	@test -n "$(SEED)" || { echo "which seed? make sim-shrink SEED=7" >&2; exit 2; }
	$(SIMULATE) -shrink $(SEED) $(if $(DRAW),-draw $(DRAW))

# What make test runs: the same 400 seeds always, those that have found something, and 400 drawn from the commit. Of the first, all pools are replicated (draw 5): what only those come across is
# seldom among the others, which take twice as long.
sim-test: | go
	$(SIMULATE) -seeds 400 -draw 5 -drawn 400

# The crash tester of the store (tests/crash).
STATES ?= 5000

crash: | go
	@HOLDFAST_TEST_CRASH_STATES=$(STATES) HOLDFAST_TEST_CRASH_SEED=$(or $(SEED),1) HOLDFAST_TEST_CRASH_STATE='$(STATE)' $(GO) test -count=1 -timeout 10h -run '^TestStates$$' -v ./tests/crash

# Bugs planted one after the other (tests/planted); PLANTED are its flags.
PLANTED ?=

planted: | go
	$(GO) run ./tests/planted $(PLANTED)

# Parts: sim (10,000 seeds of the simulator, from FROM on; UPDATE=1 adds them to docs/proof.md), fuzz (every fuzz target, FUZZTIME each), crash (every sequence of three operations on a store, cut at every moment),
# planted (every planted bug), kill (20 rounds of kill -9 under load), race (the unit tests, twice), cluster (10 rounds of each fault on
# real processes), verify (10 of those that last, on pools of two and of three copies), scenarios (each 5 times), model (400 random sequences on real clusters); ROUNDS changes these numbers.
PART ?= all
FUZZTIME ?= 30s

test-long: test-setup build
	HOLDFAST_TEST_BINARY=$(CURDIR)/bin/holdfast FUZZTIME=$(FUZZTIME) tests/long.sh $(PART)

bench: test-setup build
	HOLDFAST_TEST_BINARY=$(CURDIR)/bin/holdfast HOLDFAST_TEST_BENCH=1 $(GO) test -count=1 -timeout 30m -run 'Bench|^TestReport' -v ./tests/bench/...

clean:
	rm -rf bin
