package nbd

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"holdfast/core/loop"
	"holdfast/core/sim"
	"holdfast/frontends/volume/memory"
)

var address = loop.Addr{Network: "tcp", Address: "127.0.0.1:10809"}

// rig is a server in a simulated process, and one for its clients.
type rig struct {
	t       *testing.T
	w       *sim.World
	server  *sim.Loop
	clients *sim.Loop
	srv     *Server
	catalog *memory.Catalog
	disk    *memory.Device
}

// newRig serves one image, "disk", of 16 MiB.
func newRig(t *testing.T, mo memory.Options, o Options) *rig {
	t.Helper()
	w := sim.NewWorld(1)
	w.LogTo(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	if mo.Name == "" {
		mo.Name = "disk"
	}
	if mo.Size == 0 {
		mo.Size = 16 << 20
	}
	r := &rig{t: t, w: w, server: w.NewLoop("server"), clients: w.NewLoop("clients"), disk: memory.New(mo)}
	r.catalog = memory.NewCatalog(r.disk)
	r.srv = New(r.server, o, r.catalog)
	if _, err := r.srv.Listen(address, loop.ListenOptions{}); err != nil {
		t.Fatal(err)
	}
	return r
}

// end closes the server and looks for what it forgot.
func (r *rig) end() {
	r.t.Helper()
	closed := false
	r.srv.Close(func() { closed = true })
	if !r.w.RunUntil(func() bool { return closed }, time.Minute) {
		r.t.Fatal("the server did not close")
	}
	r.w.Run(time.Second)
	if n := r.disk.Sessions(); n != 0 {
		r.t.Errorf("%d handles are still attached", n)
	}
	r.w.CheckLeaks(r.t)
}

// peer is a client that sends bytes and collects what comes back.
type peer struct {
	r      *rig
	c      loop.Conn
	opened bool
	closed bool
	err    error
	got    []byte
}

func (p *peer) Opened(loop.Conn) { p.opened = true }
func (p *peer) Received(_ loop.Conn, b []byte) int {
	p.got = append(p.got, b...)
	return len(b)
}
func (p *peer) Filled(loop.Conn)  {}
func (p *peer) Drained(loop.Conn) {}
func (p *peer) Closed(_ loop.Conn, err error) {
	p.closed, p.err = true, err
}

func (r *rig) dial() *peer {
	r.t.Helper()
	p := &peer{r: r}
	p.c = r.clients.Dial(address, p)
	if !r.w.RunUntil(func() bool { return p.opened || p.closed }, time.Second) || p.closed {
		r.t.Fatalf("not connected: %v", p.err)
	}
	return p
}

// bin is the bytes of hexadecimal text; what follows # on a line is a comment.
func bin(text string) []byte {
	var s strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		s.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(s.String())
	if err != nil {
		panic(err)
	}
	return b
}

func (p *peer) send(b []byte) { p.c.Send(b) }

// take waits for n bytes and returns them.
func (p *peer) take(n int) []byte {
	p.r.t.Helper()
	if !p.r.w.RunUntil(func() bool { return len(p.got) >= n }, 30*time.Second) {
		p.r.t.Fatalf("%d bytes came instead of %d: %x (closed: %v)", len(p.got), n, p.got[:min(len(p.got), 256)], p.closed)
	}
	b := p.got[:n:n]
	p.got = p.got[n:]
	return b
}

func (p *peer) want(what, text string) {
	p.r.t.Helper()
	want := bin(text)
	if got := p.take(len(want)); !bytes.Equal(got, want) {
		p.r.t.Fatalf("%s:\n got %x\nwant %x", what, got, want)
	}
}

// wantClosed waits for the end of the connection, with nothing before it.
func (p *peer) wantClosed() {
	p.r.t.Helper()
	if !p.r.w.RunUntil(func() bool { return p.closed }, time.Minute) {
		p.r.t.Fatal("the connection was not closed")
	}
	if len(p.got) > 0 {
		p.r.t.Errorf("before the end came %x", p.got)
	}
}

func option(kind uint32, data []byte) []byte {
	b := be.AppendUint64(nil, optionMagic)
	b = be.AppendUint32(b, kind)
	b = be.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func str(s string) []byte { return append(be.AppendUint32(nil, uint32(len(s))), s...) }

// optReply takes one option reply.
func (p *peer) optReply(kind uint32) (rep uint32, data []byte) {
	p.r.t.Helper()
	h := p.take(20)
	if be.Uint64(h) != optReplyMagic || be.Uint32(h[8:]) != kind {
		p.r.t.Fatalf("reply to option %d begins %x", kind, h)
	}
	return be.Uint32(h[12:]), p.take(int(be.Uint32(h[16:])))
}

// attached is a client in the transmission phase of "disk".
func (r *rig) attached(structured bool) *peer {
	r.t.Helper()
	p := r.dial()
	p.take(18)
	p.send([]byte{0, 0, 0, 3})
	if structured {
		p.send(option(optStructuredReply, nil))
		p.optReply(optStructuredReply)
		p.send(option(optSetMetaContext, append(append(str("disk"), 0, 0, 0, 1), str(baseAllocation)...)))
		p.optReply(optSetMetaContext)
		p.optReply(optSetMetaContext)
	}
	p.send(option(optGo, append(str("disk"), 0, 0)))
	for {
		rep, data := p.optReply(optGo)
		if rep == repAck {
			return p
		}
		if rep != repInfo {
			r.t.Fatalf("go: reply %#x: %s", rep, data)
		}
	}
}

func request1(kind, flags uint16, cookie, offset uint64, length uint32) []byte {
	b := be.AppendUint32(nil, requestMagic)
	b = be.AppendUint16(b, flags)
	b = be.AppendUint16(b, kind)
	b = be.AppendUint64(b, cookie)
	b = be.AppendUint64(b, offset)
	return be.AppendUint32(b, length)
}

// answer is a whole reply to one request.
type answer struct {
	cookie uint64
	errno  Errno
	data   []byte   // of a read
	status []uint32 // of block status: length, flags, ...
	chunks string   // for people: "data 0+512, hole 512+4096"
}

// answer takes one reply; lengths are those of the reads under way by cookie, for simple replies.
func (p *peer) answer(lengths map[uint64]uint32) answer {
	p.r.t.Helper()
	a := answer{}
	var chunks []string
	base := uint64(0)
	for {
		h := p.take(16)
		if be.Uint32(h) == simpleMagic {
			a.cookie, a.errno = be.Uint64(h[8:]), Errno(be.Uint32(h[4:]))
			if a.errno == 0 {
				a.data = p.take(int(lengths[a.cookie]))
			}
			return a
		}
		if be.Uint32(h) != structuredMagic {
			p.r.t.Fatalf("reply begins %x", h)
		}
		n := be.Uint32(p.take(4))
		body := p.take(int(n))
		a.cookie = be.Uint64(h[8:])
		switch kind := be.Uint16(h[6:]); kind {
		case replyNone:
		case replyOffsetData:
			if base == 0 && len(a.data) == 0 {
				base = be.Uint64(body)
			}
			chunks = append(chunks, fmt.Sprintf("data %d+%d", be.Uint64(body), n-8))
			a.data = append(a.data, body[8:]...)
		case replyOffsetHole:
			chunks = append(chunks, fmt.Sprintf("hole %d+%d", be.Uint64(body), be.Uint32(body[8:])))
			a.data = append(a.data, make([]byte, be.Uint32(body[8:]))...)
		case replyBlockStatus:
			for i := 4; i < len(body); i += 4 {
				a.status = append(a.status, be.Uint32(body[i:]))
			}
		case replyError:
			a.errno = Errno(be.Uint32(body))
			if int(be.Uint16(body[4:])) != len(body)-6 {
				p.r.t.Errorf("error chunk's message length does not fit: %x", body)
			}
		default:
			p.r.t.Fatalf("chunk of type %#x", kind)
		}
		if be.Uint16(h[4:])&replyFlagDone != 0 {
			a.chunks = strings.Join(chunks, ", ")
			return a
		}
	}
}

// do sends one request and takes its answer.
func (p *peer) do(kind, flags uint16, offset uint64, length uint32, payload []byte) answer {
	p.r.t.Helper()
	p.send(append(request1(kind, flags, 7, offset, length), payload...))
	read := map[uint64]uint32{}
	if kind == cmdRead {
		read[7] = length
	}
	a := p.answer(read)
	if a.cookie != 7 {
		p.r.t.Fatalf("answer to request %d, want 7", a.cookie)
	}
	return a
}
