package peer

import (
	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/wire"
)

// Hub is one loop's connections: those it dials to OSDs and those that others make to it.
type Hub struct {
	l loop.Loop
	o Options
	h Handler
}

// New makes a Hub without connections. h may be nil for a client that only calls.
func New(l loop.Loop, o Options, h Handler) *Hub {
	o.fill(l)
	return &Hub{l: l, o: o, h: h}
}

// Listen accepts connections at addr.
func (b *Hub) Listen(addr loop.Addr, o loop.ListenOptions) (loop.Listener, error) { return nil, nil }

// SetPeer makes an OSD's addresses known, best first. A connection that stands is kept.
func (b *Hub) SetPeer(osd layout.OSDNum, addrs []loop.Addr) {}

// RemovePeer forgets an OSD: its connection is closed and its calls fail.
func (b *Hub) RemovePeer(osd layout.OSDNum) {}

// Connect dials now and keeps dialling when the connection is lost, until RemovePeer. Without it the Hub dials at the first Call.
func (b *Hub) Connect(osd layout.OSDNum) {}

// Drop closes the connection to an OSD; it is dialled again as needed. The sent calls fail with cause.
func (b *Hub) Drop(osd layout.OSDNum, cause error) {}

// Connected reports whether a Call would be sent at once.
func (b *Hub) Connected(osd layout.OSDNum) bool { return false }

// Info is what is known of a connected OSD.
func (b *Hub) Info(osd layout.OSDNum) (PeerInfo, bool) { return PeerInfo{}, false }

// Call sends c to an OSD; c.Done is called later, once.
func (b *Hub) Call(osd layout.OSDNum, c *Call) {}

// Cancel takes back a call that has not been sent: true means that it is its owner's again and that Done will not be called.
func (b *Hub) Cancel(c *Call) bool { return false }

// RemoteDeadline converts a moment of our clock to the connected OSD's clock, never to a later moment. false means that the offset is not known.
func (b *Hub) RemoteDeadline(osd layout.OSDNum, local loop.Instant) (uint64, bool) { return 0, false }

// Close closes everything. Calls fail with ErrClosed; the Handler hears nothing more.
func (b *Hub) Close() {}

// PeerInfo is what a connected OSD said of itself.
type PeerInfo struct {
	Instance uint64
	Legacy   bool             // a stock OSD
	Config   wire.ConfigReply // what it answered to SHOW_CONFIG
}
