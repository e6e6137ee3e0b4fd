// Package files is the file tree that NFS serves over the images of a cluster (nfs.Tree): a file is an image, a slash in an image's name makes a directory.
//
// A directory exists as long as an image below it does; one that was made on its own, or whose last file was removed, has a small key of ours:
//
//	nfs/dir/<path>   {"id":"<32 hex digits>","mode":...,"uid":...,"gid":...,"atime":...,"mtime":...,"ctime":...}   a directory
//	nfs/dir/         the root directory's attributes
//	nfs/attr/<id>    {"mode":..., ...,"verifier":"<16 hex digits>"}                                               a file's, by its image's identity
//
// They are not in the image's configuration because each change of that makes OSDs and clients compare revisions. Times are nanoseconds. What an image is called and how long it is
// stands in its configuration only: so every protocol and every gateway agrees on it.
//
// Reading (attributes, lookup, listing) happens on the loop of whoever asks, from an immutable view that is swapped atomically. Changes happen on the home loop, each as one transaction
// that compares what it was decided by, and is answered when the view shows it and the asking loop's client has heard of it. A growing WRITE waits for the size to be in etcd; growths
// of one file that come together share a transaction. The times of a file that is written to move at once here and are written to etcd within two seconds; they never go back on one
// gateway.
//
// Where a file and a directory have one name (images "a" and "a/b"), NFS shows the file.
//
// Lock order: Tree.mu is the only lock; nothing is called while it is held.
package files
