package nfs

import (
	"time"

	"holdfast/core/loop"
)

// keptReplies is how many replies are kept for one client: more than it has calls of this kind under way, few enough to bound memory (a reply is below 500 bytes).
const keptReplies = 256

// keptFor is for how long a kept reply is given again. Clients retransmit for minutes at most, and reuse an xid much later.
const keptFor = 2 * time.Minute

// callKey recognizes a retransmission: an xid alone may come again after a client's restart.
type callKey struct {
	xid, proc, crc uint32
}

// replyCache is the duplicate request cache of one client: calls that change names or attributes, under way and answered. (RFC 1813, section 4.4 tells why: a REMOVE repeated
// after its reply was lost must not find the name gone.) It lives in this server's memory.
type replyCache struct {
	byKey map[callKey]*cachedReply
	ring  [keptReplies]*cachedReply
	at    int
}

type cachedReply struct {
	key   callKey
	done  bool
	when  loop.Instant
	reply []byte  // the whole record
	first *conn   // the connection on which the call came first, while under way
	also  []*conn // connections on which the call came again while under way
}

// enter notes a call. It returns the earlier one that it repeats, or else the new one.
func (rc *replyCache) enter(key callKey, now loop.Instant) (e *cachedReply, repeated bool) {
	if old := rc.byKey[key]; old != nil && (!old.done || now.Sub(old.when) < keptFor) {
		return old, true
	}
	if rc.byKey == nil {
		rc.byKey = make(map[callKey]*cachedReply)
	}
	if old := rc.ring[rc.at]; old != nil {
		rc.remove(old)
	}
	e = &cachedReply{key: key, when: now}
	rc.ring[rc.at] = e
	rc.at = (rc.at + 1) % keptReplies
	rc.byKey[key] = e
	return e, false
}

// remove forgets a call, so that it is done again when it comes again.
func (rc *replyCache) remove(e *cachedReply) {
	if rc.byKey[e.key] == e {
		delete(rc.byKey, e.key)
	}
}
