#!/bin/bash
# The long tests, by part: sim, crash, planted, fuzz, kill, race, cluster, verify, scenarios, model, or all of them one after the other.
set -euo pipefail
cd "$(dirname "$0")/.."
part=${1:-all}
fuzztime=${FUZZTIME:-30s}

# Each target takes FUZZTIME and at most 15 s for building and for its seeds: 75 targets of 30 s fit into an hour.
fuzz() {
	local pkg dir target n=0
	local -a targets=()
	while read -r pkg dir; do
		for target in $(grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go 2>/dev/null | sed 's/^func //'); do
			targets+=("$pkg $target")
		done
	done < <(go list -f '{{.ImportPath}} {{.Dir}}' ./...)
	for target in "${targets[@]}"; do
		pkg=${target% *} target=${target#* } n=$((n + 1))
		echo "fuzz $n of ${#targets[@]}: $pkg $target"
		# Without a bound the fuzzer spends a minute on making one interesting input smaller, in which it tries nothing new.
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" -fuzzminimizetime 1x "$pkg"
	done
}

kill_rounds() {
	HOLDFAST_TEST_ROUNDS=20 go test -count=1 -timeout 60m -v -run 'Kill|Survives' ./tests/appliance/... ./tests/e2e/...
}

race() {
	go test -race -shuffle=on -count=2 -timeout 55m $(go list ./... | grep -v '^holdfast/tests/')
}

sim() {
	# UPDATE=1 adds what was run to docs/proof.md.
	go run ./tests/sim/simulate -seeds "${SEEDS:-10000}" -from "${FROM:-1}" ${UPDATE:+-record}
	# No line of a draw lets members answer reads.
	HOLDFAST_TEST_SEEDS=${LOCAL_SEEDS:-1000} go test -count=1 -timeout 60m -v -run '^TestLocalReads$' ./tests/sim
}

cluster() {
	# UPDATE=1 writes what is measured into docs/proof.md.
	HOLDFAST_TEST_ROUNDS=${ROUNDS:-10} go test -count=1 -timeout 60m -v -skip '^TestVerify$' ./tests/cluster ${UPDATE:+-update}
}

verify() {
	HOLDFAST_TEST_ROUNDS=${ROUNDS:-10} go test -count=1 -timeout 60m -v -run '^TestVerify$' ./tests/cluster ${UPDATE:+-update}
}

scenarios() {
	go test -count="${ROUNDS:-5}" -timeout 60m ./tests/scenarios
}

model() {
	HOLDFAST_TEST_ROUNDS=${ROUNDS:-400} go test -count=1 -timeout 60m ./tests/model
}

crash() {
	HOLDFAST_TEST_CRASH_LONG=1 go test -count=1 -timeout 60m -v -run 'Three|Long|Chunks' ./tests/crash
}

planted() {
	go run ./tests/planted
}

case $part in
sim) sim ;;
crash) crash ;;
planted) planted ;;
fuzz) fuzz ;;
kill) kill_rounds ;;
race) race ;;
cluster) cluster ;;
verify) verify ;;
scenarios) scenarios ;;
model) model ;;
all) sim; crash; planted; fuzz; kill_rounds; race; cluster; verify; scenarios; model ;;
*)
	echo "there is no part $part: give sim, crash, planted, fuzz, kill, race, cluster, verify, scenarios, model or all" >&2
	exit 2
	;;
esac
