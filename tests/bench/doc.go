// Package bench measures Holdfast beside fio on the same disk in the same run, and writes the tables of docs/performance.md. `make bench` runs it.
package bench
