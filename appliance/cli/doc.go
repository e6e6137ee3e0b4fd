// Package cli is the command line: it parses, calls core/admin, core/images and the daemons' rooms, and formats what they say. It decides nothing itself.
//
// Every command reads the configuration in the same way (flag, environment, etcd, file, default) and takes every parameter as a flag. What is printed as a table can be had
// with --json; the names in it are stable. Exit codes are those of core/admin's kinds of errors.
package cli
