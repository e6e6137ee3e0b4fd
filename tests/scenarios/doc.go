// Package scenarios runs what Vitastor's own tests ask of a cluster, over our daemons in processes of their own: the same set-ups, the same assertions, the same names.
//
//	go test ./tests/scenarios                        all of them
//	go test -v -run 'TestScenario/heal' ./tests/scenarios
//
// Every scenario looks at the bytes, not only at exit codes: a mirror of each image is kept beside it and compared. Nothing waits for a time; it waits for a state that the command line shows.
// Where the original has a half with erasure codes that ours has not, a comment says so. Where ours must do more than the original (rm_degraded, splitbrain), it says that, too.
package scenarios
