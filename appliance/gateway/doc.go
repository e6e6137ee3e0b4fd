// Package gateway is the daemon that serves the images of a cluster over NBD, NFS and iSCSI: it binds the protocol servers of frontends to core/client.
//
// It runs N loops. Each has a lane: one core/client.Client with its own connections to the OSDs, and one server of each protocol; a connection lives on one lane, so a request
// never changes threads. Lanes share the catalog of images (appliance/exports) and the index of files (appliance/files), both immutable and swapped atomically, and the list of
// sessions that a later one may take over, which is touched at attach only. What changes names, sizes and attributes of files runs on the first lane.
//
// Sessions. Each attached handle is one client.Session; its id is the gateway's instance above a count (cluster.SessionBits). The instance is drawn at each start of the process and
// registered as gateway/<id> under a lease. When the lease is lost, the process, and so its sessions, live on: it registers again with the same instance, as OSDs keep what they know
// about an instance for a minute after its key has gone. A session that is replaced is cut on this side at once; if it had changes under way they may still be on their way, so its
// fence goes to etcd, and the successor waits until in each PG an OSD of its set has applied it and pg_lock_time has passed (core/client, AwaitFence): by then each primary has applied the
// fence or has lost its locks.
//
// Lock order: images.mu is the only lock; nothing is called while it is held.
package gateway
