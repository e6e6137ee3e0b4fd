// Package allinone is `holdfast up`: a whole cluster - etcd, monitor, OSDs, gateway - in one process and one folder.
//
// appliance/cli starts it. The parts are those of a large cluster and speak to each other over sockets, each on a thread of its own; what is missing compared to one is
// only that they share a host and a process. A part that fails does not take the others down: the cluster goes on with what is left.
package allinone
