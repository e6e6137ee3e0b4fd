// Package stand starts real clusters for tests: the holdfast program in processes of its own, on free ports and folders that go away, and clients that other people wrote.
//
// tests/e2e, tests/cluster, tests/scenarios, tests/model, tests/appliance and tests/bench use it. Whatever it starts ends with the test, also when the test is killed.
package stand
