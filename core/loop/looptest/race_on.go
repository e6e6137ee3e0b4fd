//go:build race

package looptest

const race = true
