// Package cluster puts real faults on a real cluster of separate daemons: kill -9, SIGSTOP beyond every lease, links that are cut in one direction or both, full disks, lost members of
// etcd, and the end of everything at once.
//
// One cluster of three hosts in network namespaces (an etcd member, a monitor and an OSD each), a gateway and a client goes through all of them, one after the other, while fio writes
// and verifies over NBD and a load of our own checks that each block holds what was acknowledged last. No request may fail. The longest time without I/O is printed for each fault:
//
//	go test -v ./tests/cluster                     one round of each
//	HOLDFAST_TEST_ROUNDS=10 go test -run 'Faults|Proof' ./tests/cluster -update
//	                                               ten, and their table of docs/proof.md from what was measured
//	go test -run Verify ./tests/cluster            those that last, on pools of two and of three copies
//	go test ./tests/cluster -fault 'paused|mute'
package cluster
