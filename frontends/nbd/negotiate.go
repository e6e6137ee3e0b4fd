package nbd

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"holdfast/frontends/volume"
)

func (c *conn) clientFlags(f uint32) {
	if f&^(flagFixedNewstyle|flagNoZeroes) != 0 {
		c.broken("unknown client flags %#x", f) // NBD proto.md, "Client flags": the server must drop the connection
		return
	}
	c.fixed, c.noZeroes = f&flagFixedNewstyle != 0, f&flagNoZeroes != 0
	c.phase = wantOption
}

// optionHeader decides from the header alone what is done with an option's data.
func (c *conn) optionHeader() {
	if !c.fixed && c.option != optExportName {
		c.broken("option %d without fixed newstyle", c.option)
		return
	}
	if c.option == optExportName && c.optionLen > maxString {
		c.broken("export name of %d bytes", c.optionLen) // this option has no reply that says so
		return
	}
	if c.optionLen <= maxOption {
		c.phase = wantOptionData
		return
	}
	if c.optionLen > maxSkip {
		c.broken("option %d with %d bytes of data", c.option, c.optionLen)
		return
	}
	c.skip = uint64(c.optionLen)
	c.refuse(repErrTooBig, fmt.Sprintf("the option's data is longer than %d bytes", maxOption))
}

func (c *conn) doOption(data []byte) {
	switch c.option {
	case optExportName:
		c.exportName(string(data))
	case optAbort:
		c.reply(repAck, nil)
		c.ending, c.shut = true, true
		c.c.CloseAfterSend()
	case optList:
		c.list(data)
	case optInfo, optGo:
		c.infoOrGo(data)
	case optStructuredReply:
		if len(data) != 0 {
			c.refuse(repErrInvalid, "this option has no data")
			return
		}
		c.structured = true
		c.reply(repAck, nil)
	case optListMetaContext, optSetMetaContext:
		c.metaContext(data)
	case optStartTLS:
		c.refuse(repErrUnsup, "TLS is not supported by this server")
	case optExtendedHeaders:
		c.refuse(repErrUnsup, "extended headers are not supported by this server")
	default:
		c.refuse(repErrUnsup, "unknown option")
	}
}

// reply sends an option reply (NBD proto.md, "Fixed newstyle negotiation").
func (c *conn) reply(kind uint32, data []byte) {
	b := be.AppendUint64(c.s.scratch[:0], optReplyMagic)
	b = be.AppendUint32(b, c.option)
	b = be.AppendUint32(b, kind)
	b = be.AppendUint32(b, uint32(len(data)))
	b = append(b, data...)
	c.c.Send(b)
	c.s.scratch = b
}

// refuse replies with an error and a sentence for people.
func (c *conn) refuse(kind uint32, why string) { c.reply(kind, []byte(why)) }

func (c *conn) list(data []byte) {
	if len(data) != 0 {
		c.refuse(repErrInvalid, "this option has no data")
		return
	}
	for _, name := range c.s.catalog.Names() {
		if len(name) > maxString {
			continue
		}
		c.reply(repServer, append(be.AppendUint32(nil, uint32(len(name))), name...))
	}
	c.reply(repAck, nil)
}

// exportName ends the negotiation in the old way, which has no errors but the end of the connection.
func (c *conn) exportName(name string) {
	why, _ := c.attach(name)
	if why != "" {
		c.broken("export %q: %s", name, why)
		return
	}
	b := be.AppendUint64(c.s.scratch[:0], c.info.Size)
	b = be.AppendUint16(b, transmissionFlags(&c.info, c.structured))
	if !c.noZeroes {
		b = append(b, make([]byte, 124)...)
	}
	c.c.Send(b)
	c.s.scratch = b
}

func (c *conn) infoOrGo(data []byte) {
	d := reader{b: data}
	name := d.string()
	n := int(d.u16())
	var wanted [4]bool // what we have an answer for
	for range n {
		if k := d.u16(); int(k) < len(wanted) {
			wanted[k] = true
		}
	}
	if !d.done() || !validName(name) {
		c.refuse(repErrInvalid, "the option's data is not a name and a list of information requests")
		return
	}
	info := volume.Info{}
	if c.option == optGo {
		if why, kind := c.attach(name); why != "" {
			c.refuse(kind, why)
			return
		}
		info = c.info
	} else {
		var ok bool
		if _, info, ok = c.s.resolve(name); !ok {
			c.refuse(repErrUnknown, c.unknown(name))
			return
		}
		info.ReadOnly = info.ReadOnly || c.s.o.ReadOnly
	}
	b := be.AppendUint16(nil, infoExport)
	b = be.AppendUint64(b, info.Size)
	c.reply(repInfo, be.AppendUint16(b, transmissionFlags(&info, c.structured)))
	// Block sizes are told whether the client asks or not, so that one that does not can still obey them.
	minimum, preferred, payload := blockSizes(&info)
	b = be.AppendUint16(b[:0], infoBlockSize)
	b = be.AppendUint32(b, minimum)
	b = be.AppendUint32(b, preferred)
	c.reply(repInfo, be.AppendUint32(b, payload))
	if wanted[infoName] && len(info.Name) <= maxString {
		c.reply(repInfo, append(be.AppendUint16(b[:0], infoName), info.Name...))
	}
	if wanted[infoDescription] {
		c.reply(repInfo, fmt.Appendf(be.AppendUint16(b[:0], infoDescription), "Holdfast image %x", info.ID))
	}
	c.reply(repAck, nil)
}

func (c *conn) unknown(name string) string {
	if name == "" {
		return "this server has no default export: name one, as in nbd://host/NAME"
	}
	return fmt.Sprintf("no image is called %q", name)
}

// attach enters the transmission phase, or says why not and with which reply.
func (c *conn) attach(name string) (why string, kind uint32) {
	d, info, ok := c.s.resolve(name)
	if !ok {
		return c.unknown(name), repErrUnknown
	}
	h, err := d.Attach(c.s.l, volume.Session{Protocol: "nbd", Client: c.c.Remote().String(), ReadOnly: c.s.o.ReadOnly, Alive: c.c.LastAck})
	if err != nil {
		return fmt.Sprintf("image %q: %v", info.Name, err), repErrPolicy
	}
	c.h, c.info, c.name = h, h.Info(), info.Name
	_, _, c.payload = blockSizes(&c.info)
	// Contexts count only for the export that they were chosen for (NBD proto.md, NBD_OPT_SET_META_CONTEXT).
	c.status = c.metaChosen && c.metaName == info.Name
	c.phase = wantRequest
	c.s.l.Disarm(&c.timer)
	h.Events(c)
	c.log.Info("client attached", "export", c.name, "structured", c.structured)
	return "", 0
}

// metaContext answers NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT.
func (c *conn) metaContext(data []byte) {
	set := c.option == optSetMetaContext
	if set {
		c.metaChosen = false // each one replaces the one before, also when it fails
	}
	if !c.structured {
		c.refuse(repErrInvalid, "metadata contexts need structured replies first")
		return
	}
	d := reader{b: data}
	name := d.string()
	n := d.u32()
	match := !set && n == 0
	for i := uint32(0); i < n && !d.bad; i++ {
		q := d.string()
		// "base:" is a wildcard when listing (NBD proto.md, "Metadata querying").
		match = match || q == baseAllocation || !set && q == "base:"
	}
	if !d.done() || !validName(name) {
		c.refuse(repErrInvalid, "the option's data is not a name and a list of queries")
		return
	}
	_, info, ok := c.s.resolve(name)
	if !ok {
		c.refuse(repErrUnknown, c.unknown(name))
		return
	}
	if match {
		id := uint32(0) // reserved when listing
		if set {
			id, c.metaChosen, c.metaName = allocationID, true, info.Name
		}
		c.reply(repMetaContext, append(be.AppendUint32(nil, id), baseAllocation...))
	}
	c.reply(repAck, nil)
}

// validName is what every string has to be (NBD proto.md, "Conventions").
func validName(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// reader takes an option's data apart; after a fault everything it returns is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) u16() uint16 {
	if p := r.take(2); p != nil {
		return be.Uint16(p)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if p := r.take(4); p != nil {
		return be.Uint32(p)
	}
	return 0
}

// string is a length of 32 bits and as many bytes, at most maxString.
func (r *reader) string() string {
	n := r.u32()
	if n > maxString {
		r.bad = true
		return ""
	}
	return string(r.take(int(n)))
}

// done reports whether everything was there and nothing is left.
func (r *reader) done() bool { return !r.bad && len(r.b) == 0 }
