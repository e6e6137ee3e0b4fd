package iscsi

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"holdfast/frontends/iscsi/scsi"
)

// Options configure a Server. The zero value of a field asks for the default.
type Options struct {
	// TargetPrefix is what target names begin with; the image's name follows (TargetName). Default DefaultPrefix.
	TargetPrefix string
	// Portals are the "address:port" that SendTargets names for each target, of every gateway (spec/clients.md I8). Default: the address that the initiator connected to.
	Portals []Portal
	// PortalGroup is TargetPortalGroupTag of this gateway, and RelativePort its relative target port identifier and target port group; both unique in the cluster
	// (spec/clients.md I6). Default 1.
	PortalGroup  uint16
	RelativePort uint16
	// Ports are the ports of every gateway for REPORT TARGET PORT GROUPS; default: this one. Port.Name is not used.
	Ports []scsi.Port

	// CHAP gives the credentials for an image, or for discovery when image is ""; ok is false where none are asked for. Nil: nowhere. It may be called from any loop.
	CHAP func(image string) (c CHAP, ok bool)
	// Allow decides whether an initiator may see and use an image ("" for discovery itself). Nil: everyone. It may be called from any loop.
	Allow func(image, initiator, remote string) bool

	// QueueDepth is how many commands of one session may be under way (MaxCmdSN). Default 128, at most 1024.
	QueueDepth int
	// MaxConnections bounds the connections of one Server; further ones are refused. Default 1024.
	MaxConnections int
	// LoginTimeout bounds the time from connecting to full feature phase. Default 15 s.
	LoginTimeout time.Duration
	// PingInterval is how long a session may be silent before it is asked with NOP-In; after as long again without an answer it is ended. Default 30 s.
	PingInterval time.Duration
}

// Portal is one address of a target.
type Portal struct {
	Address string // "host:port", an IPv6 host in brackets
	Group   uint16 // portal group tag of the gateway that listens there
}

const (
	defaultQueueDepth = 128
	maxQueueDepth     = 1024
	// maxImmediate is how many immediate commands may be under way beside the window (RFC 7143, section 4.2.2.1).
	maxImmediate = 16
	// readBudget and writeBudget bound the bytes of one session that are being read, or were asked for with R2T and not yet written. One command may exceed them alone.
	readBudget  = 8 << 20
	writeBudget = 8 << 20
)

// Validate says everything that is wrong with the options.
func (o Options) Validate() error {
	var errs []error
	o = o.withDefaults()
	if !validInitiator(o.TargetPrefix) || len(o.TargetPrefix) > maxName-32 || TargetName(o.TargetPrefix, "x") != strings.ToLower(TargetName(o.TargetPrefix, "x")) {
		errs = append(errs, fmt.Errorf("iSCSI target prefix %q: it must be an iqn., eui. or naa. name in lower case, at most %d bytes long", o.TargetPrefix, maxName-32))
	}
	for i := range len(o.TargetPrefix) {
		if c := o.TargetPrefix[i]; !plain(c) && c != ':' {
			errs = append(errs, fmt.Errorf("iSCSI target prefix %q: %q is not allowed; use lower-case letters, digits, '-', '.' and ':'", o.TargetPrefix, c))
			break
		}
	}
	for _, p := range o.Portals {
		if host, _, err := net.SplitHostPort(p.Address); err != nil || host == "" {
			errs = append(errs, fmt.Errorf("iSCSI portal %q: it must be host:port, an IPv6 host in brackets", p.Address))
		}
	}
	if !slices.IsSortedFunc(o.Ports, func(a, b scsi.Port) int { return int(a.Group) - int(b.Group) }) {
		errs = append(errs, errors.New("iSCSI ports: they must be sorted by group"))
	}
	return errors.Join(errs...)
}

func (o Options) withDefaults() Options {
	if o.TargetPrefix == "" {
		o.TargetPrefix = DefaultPrefix
	}
	if o.PortalGroup == 0 {
		o.PortalGroup = 1
	}
	if o.RelativePort == 0 {
		o.RelativePort = 1
	}
	if o.QueueDepth == 0 {
		o.QueueDepth = defaultQueueDepth
	}
	o.QueueDepth = min(max(o.QueueDepth, 1), maxQueueDepth)
	if o.MaxConnections == 0 {
		o.MaxConnections = 1024
	}
	if o.LoginTimeout == 0 {
		o.LoginTimeout = 15 * time.Second
	}
	if o.PingInterval == 0 {
		o.PingInterval = 30 * time.Second
	}
	return o
}
