// Package bootstrap makes clusters: the folder that `holdfast up` keeps a whole cluster in, and the first keys of a cluster in etcd.
//
// appliance/allinone uses it. A folder is made in an order that lets an interrupted start be repeated; nothing that exists is overwritten, and a folder that is not ours
// is refused.
package bootstrap
