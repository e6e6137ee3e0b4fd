// Package daemon runs one part of a cluster - an OSD, a monitor - on a thread of its own: it reads the configuration, connects to etcd, opens the disk, starts the part,
// and stops it in order.
//
// appliance/cli runs one of them per process, appliance/allinone several in one. What the parts decide is their own (osd, monitor); here they are only given what they
// need. Everything here is ordinary goroutine code: a loop's things are touched through Thread.Do and Await only.
package daemon
