package peer

import (
	"log/slog"
	"time"

	"holdfast/core/layout"
	"holdfast/core/loop"
	"holdfast/core/wire"
)

// Roles that a daemon proves along with its number; others are allowed (at most wire.MaxRole bytes).
const (
	RoleOSD    = "osd"    // Self is not 0
	RoleClient = "client" // Self is 0
	RoleParent = "parent" // the parent process of OSD Self: it may report the child's death and is not that OSD
)

// Options says who we are and sets limits. Zero values of times and limits mean the defaults in brackets.
type Options struct {
	Self     layout.OSDNum // our number; 0 is a client
	Role     string        // [RoleOSD or RoleClient, by Self]
	Instance uint64        // random id of this run of the process, the same for all its loops; must not repeat
	Client   string        // name for people, in the other side's logs

	// Key is the cluster key; nil switches authentication off on our side, and then only others without a key are accepted.
	Key []byte
	// AllowLegacy says whether a client that does not speak our handshake may connect from an address, and, on a client, whether such an OSD may be used at one;
	// nil means none may.
	AllowLegacy func(remote loop.Addr) bool
	// Config gives what SHOW_CONFIG tells; number, version, features and handshake are filled in by the Hub. A client may leave it nil. Between OSDs, block size
	// and granularity must be equal and the other's immediate_commit at least as strong as ours.
	Config func() wire.ConfigReply

	ConnectTimeout     time.Duration // for the TCP connection [5 s]
	HandshakeTimeout   time.Duration // from the connection to the end of the handshake [5 s]
	ConnectInterval    time.Duration // between attempts at first; it doubles [0.2 s]
	ConnectIntervalMax time.Duration // and grows to this [5 s]
	IdleTimeout        time.Duration // silence after which a ping is sent (osd_idle_timeout) [0.5 s]
	PingTimeout        time.Duration // silence after the ping that ends the connection (osd_ping_timeout) [1 s]
	ClockInterval      time.Duration // between looks at the other side's clock on a busy connection [5 s]

	MaxConnections int // incoming [4096]
	MaxPending     int // incoming that have not finished the handshake [256]
	MaxInFlight    int // bytes of unanswered requests per incoming connection, above which it is not read [64 MiB]
	MaxQueue       int // calls that wait for a connection, per OSD [65536]

	Log *slog.Logger // [the loop's]
}

func (o *Options) fill(l loop.Loop) {
	if o.Role == "" {
		o.Role = RoleClient
		if o.Self != 0 {
			o.Role = RoleOSD
		}
	}
	def(&o.ConnectTimeout, 5*time.Second)
	def(&o.HandshakeTimeout, 5*time.Second)
	def(&o.ConnectInterval, 200*time.Millisecond)
	def(&o.ConnectIntervalMax, 5*time.Second)
	def(&o.IdleTimeout, 500*time.Millisecond)
	def(&o.PingTimeout, time.Second)
	def(&o.ClockInterval, 5*time.Second)
	def(&o.MaxConnections, 4096)
	def(&o.MaxPending, 256)
	def(&o.MaxInFlight, wire.MaxData)
	def(&o.MaxQueue, 65536)
	if o.Log == nil {
		o.Log = l.Log()
	}
}

func def[T ~int | ~int64](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}
