// Package admin is what operators see and do: the reports (status, space, images, pools, OSDs, PGs) and the changes (create a pool) that the command line and the console
// both offer.
//
// Reports are pure: they take a snapshot of the cluster and return plain values with stable snake_case JSON names; 64-bit counts are numbers. Changes take a registry and
// call back on its loop. Errors name the thing, the cause and the way out (Error).
package admin
