// Package e2e tests the program as people use it: `holdfast up` and separate daemons as real processes, other people's clients, kill -9, bad input, damaged and full disks, a Linux kernel in a guest.
//
// HOLDFAST_TEST_ROUNDS repeats the failures more often (`make test-long PART=kill`). Nothing is skipped for want of a program: a missing one fails and is named.
package e2e
