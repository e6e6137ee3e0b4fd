package nfs

import (
	"holdfast/frontends/nfs/rpc"
	"holdfast/frontends/nfs/xdr"
)

// portmapProcs are the procedures of the portmapper, version 2, by number (RFC 1833, section 3.2). CALLIT is not offered: it answers for others.
var portmapProcs = [...]func(*request, *xdr.Decoder){null, portSet, portSet, getPort, portDump}

const protocolTCP = 6

// served are the programs behind one port.
var served = [...]struct{ program, version uint32 }{{rpc.ProgramPortmap, 2}, {rpc.ProgramNFS, 3}, {rpc.ProgramMount, 3}}

// portFor is the port on which a program is reached: the portmapper is wherever it was asked.
func (r *request) portFor(program uint32) uint32 {
	switch {
	case program == rpc.ProgramPortmap:
		return uint32(portOf(r.conn.c.Local()))
	case r.s.o.Port > 0:
		return uint32(r.s.o.Port)
	}
	return uint32(r.s.port)
}

// portSet is SET and UNSET, which this portmapper refuses to everyone.
func portSet(r *request, d *xdr.Decoder) {
	mapping(d)
	if !d.OK() {
		r.garbageArgs()
		return
	}
	r.begin().Bool(false)
	r.reply()
}

func mapping(d *xdr.Decoder) (program, version, protocol uint32) {
	program, version, protocol = d.Uint32(), d.Uint32(), d.Uint32()
	d.Uint32() // port
	return program, version, protocol
}

// getPort is GETPORT: 0 for what is not served here.
func getPort(r *request, d *xdr.Decoder) {
	program, version, protocol := mapping(d)
	if !d.OK() {
		r.garbageArgs()
		return
	}
	port := uint32(0)
	for _, s := range served {
		if s.program == program && s.version == version && protocol == protocolTCP {
			port = r.portFor(program)
		}
	}
	r.begin().Uint32(port)
	r.reply()
}

// portDump is DUMP.
func portDump(r *request, _ *xdr.Decoder) {
	e := r.begin()
	for _, s := range served {
		e.Bool(true)
		e.Uint32(s.program)
		e.Uint32(s.version)
		e.Uint32(protocolTCP)
		e.Uint32(r.portFor(s.program))
	}
	e.Bool(false)
	r.reply()
}
