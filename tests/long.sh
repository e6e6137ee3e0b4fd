#!/bin/bash
# The long tests, by part: sim, fuzz, kill, race, or all of them one after the other.
set -euo pipefail
cd "$(dirname "$0")/.."
part=${1:-all}
fuzztime=${FUZZTIME:-30s}

fuzz() {
	local pkg dir target
	while read -r pkg dir; do
		for target in $(grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go 2>/dev/null | sed 's/^func //'); do
			echo "fuzz $pkg $target"
			go test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" "$pkg"
		done
	done < <(go list -f '{{.ImportPath}} {{.Dir}}' ./...)
}

kill_rounds() {
	HOLDFAST_TEST_ROUNDS=20 go test -count=1 -timeout 60m -v -run 'Kill|Survives' ./tests/appliance/... ./tests/e2e/...
}

race() {
	go test -race -shuffle=on -count=2 -timeout 55m $(go list ./... | grep -v '^holdfast/tests/')
}

sim() {
	go run ./tests/sim/simulate -seeds "${SEEDS:-10000}" -from "${FROM:-1}"
}

case $part in
sim) sim ;;
fuzz) fuzz ;;
kill) kill_rounds ;;
race) race ;;
all) sim; fuzz; kill_rounds; race ;;
*)
	echo "there is no part $part: give sim, fuzz, kill, race or all" >&2
	exit 2
	;;
esac
