// Package e2e tests the program as people use it: `holdfast up` and separate daemons as real processes, other people's clients, kill -9, bad input, damaged and full disks, a Linux kernel in a guest.
//
// -long makes the tests longer (`make test-long`). Nothing is skipped for want of a program: a missing one fails and is named.
package e2e
