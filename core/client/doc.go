// Package client is image I/O on a loop: it cuts requests into objects, finds the primary of each, sends, retries, and makes every change take effect once and not late.
//
// The gateway, core/images and core/blocking use it. A Client and everything made from it belong to one loop. It guarantees that
//   - each Op completes exactly once, later, never inside the call that submitted it;
//   - a change that was sent is sent again only under the same (session, sequence) until an OSD says what became of it (DESIGN section 8, "Once, and not late");
//   - of two changes of this Client that overlap, the one submitted first is first;
//   - nothing is allocated per operation in steady state, and data is not copied between the Op's buffers and the connection (except around the edges of changes that are
//     not aligned to bitmap_granularity).
//
// A change that is not aligned becomes a read of the granules it touches and a write of them that is conditional on the object's version (CAS), as does COMPARE AND WRITE.
package client
