package peer

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"holdfast/core/loop"
	"holdfast/core/sim"
	"holdfast/core/wire"
)

// raw is a peer that sends what the test says.
type raw struct {
	t      *testing.T
	w      *sim.World
	conn   loop.Conn
	in     []byte
	open   bool
	closed bool
	then   []byte // sent once connected
}

func (r *raw) Opened(c loop.Conn) { r.open = true; c.Send(r.then) }
func (r *raw) Received(_ loop.Conn, p []byte) int {
	r.in = append(r.in, p...)
	return len(p)
}
func (r *raw) Filled(loop.Conn)        {}
func (r *raw) Drained(loop.Conn)       {}
func (r *raw) Closed(loop.Conn, error) { r.closed = true }

// Accepted makes a raw a server of one connection.
func (r *raw) Accepted(c loop.Conn) loop.ConnHandler {
	if r.conn != nil {
		return nil
	}
	r.conn, r.open = c, true
	c.Send(r.then)
	return r
}

func dialRaw(t *testing.T, w *sim.World, to loop.Addr, first ...[]byte) *raw {
	r := &raw{t: t, w: w}
	for _, p := range first {
		r.then = append(r.then, p...)
	}
	l := w.NewLoop("stranger")
	r.conn = l.Dial(to, r)
	return r
}

// send sends more from a stranger's loop.
func (r *raw) send(p ...[]byte) {
	r.w.After(0, func() {
		for _, b := range p {
			r.conn.Send(b)
		}
	})
}

// reply waits for a reply, and the JSON of SHOW_CONFIG's.
func (r *raw) reply() (h wire.Header, payload []byte, ok bool) {
	r.t.Helper()
	whole := func() int {
		if len(r.in) < wire.HeaderSize {
			return wire.HeaderSize
		}
		copy(h[:], r.in)
		if h.Op() != wire.OpShowConfig {
			return wire.HeaderSize
		}
		return wire.HeaderSize + int(max(h.Retval(), 0))
	}
	if !r.w.RunUntil(func() bool { return len(r.in) >= whole() }, 2*time.Second) {
		return h, nil, false
	}
	n := whole()
	payload, r.in = r.in[wire.HeaderSize:n:n], r.in[n:]
	return h, payload, true
}

// ended waits for the end of the connection.
func (r *raw) ended() bool {
	return r.w.RunUntil(func() bool { return r.closed }, 12*time.Second)
}

func packet(id uint64, m interface{ Encode(*wire.Header) }) []byte {
	var h wire.Header
	m.Encode(&h)
	h.SetID(id)
	return h[:]
}

func hello(t *testing.T, id uint64, c *wire.ConfigRequest) []byte {
	text, err := wire.AppendConfigRequest(nil, c)
	if err != nil {
		t.Fatal(err)
	}
	return append(packet(id, &wire.ShowConfig{JSONLen: uint64(len(text))}), text...)
}

func showConfig(id uint64, text string) []byte {
	return append(packet(id, &wire.ShowConfig{JSONLen: uint64(len(text))}), text...)
}

func anyone(loop.Addr) bool { return true }

func TestStockClientWhereAllowed(t *testing.T) {
	w := newWorld(t)
	osd := start(t, w, "osd1", 1, func(o *Options) { o.AllowLegacy = anyone })
	r := dialRaw(t, w, osd.addr, showConfig(7, `{"features":{"check_sequencing":true},"connect_rdma":"x","rdma_max_msg":5}`))
	h, text, ok := r.reply()
	if !ok || h.ID() != 7 || h.Op() != wire.OpShowConfig || text[len(text)-1] != 0 {
		t.Fatalf("reply %x %q", h, text)
	}
	var got map[string]any
	if err := json.Unmarshal(text[:len(text)-1], &got); err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]any{"osd_num": 1.0, "protocol_version": 1.0, "block_size": 131072.0, "bitmap_granularity": 4096.0, "immediate_commit": "all", "holdfast": nil} {
		if got[k] != want {
			t.Errorf("%s is %v, want %v", k, got[k], want)
		}
	}
	r.send(packet(8, &wire.ReadWrite{Op: wire.OpWrite, Len: 4096}), make([]byte, 4096), packet(9, &wire.Ping{}))
	if h, _, ok := r.reply(); !ok || h.ID() != 8 || h.Retval() != 4096 {
		t.Fatalf("reply %x", h)
	}
	if h, _, ok := r.reply(); !ok || h.ID() != 9 || h.Retval() != 0 || [8]byte(h[32:]) != [8]byte{} {
		t.Fatalf("ping's reply %x: to a stock client it is bare", h)
	}
	if from := osd.seen[0]; !from.Legacy || from.Authenticated || from.OSD != 0 || from.Instance != 0 {
		t.Fatalf("the OSD saw %+v", from)
	}
	r.send(packet(10, &wire.BareReply{}))
	if !r.ended() {
		t.Fatal("a reply to nothing is to end the connection")
	}
}

func TestStockClientMayNotDoWhatIsForOSDs(t *testing.T) {
	w := newWorld(t)
	osd := start(t, w, "osd1", 1, func(o *Options) { o.AllowLegacy = anyone })
	r := dialRaw(t, w, osd.addr, packet(1, &wire.SecSync{}), packet(2, &wire.SecReadWrite{Op: wire.OpSecRead, Len: 4096}))
	for id := uint64(1); id <= 2; id++ {
		if h, _, ok := r.reply(); !ok || h.ID() != id || h.Retval() != wire.EPERM {
			t.Fatalf("reply %x, want EPERM", h)
		}
	}
	unknown := wire.Header{}
	(&wire.Ping{}).Encode(&unknown)
	unknown.SetOp(99)
	r.send(unknown[:])
	if h, _, ok := r.reply(); !ok || h.Retval() != wire.EINVAL {
		t.Fatalf("reply %x, want EINVAL", h)
	}
	r.send(packet(4, &wire.SecReadWrite{Op: wire.OpSecWriteStable, Len: 8192}))
	if !r.ended() || len(osd.seen) != 0 {
		t.Fatal("a payload that is not taken is to end the connection")
	}
	if osd.l.Live() != 0 {
		t.Fatal("a buffer was given to it")
	}
}

func TestStrangerActsForNobodysSession(t *testing.T) {
	w := newWorld(t)
	osd := start(t, w, "osd1", 1, func(o *Options) { o.AllowLegacy = anyone })
	osd.serve = func(r *Request) { osd.held = append(osd.held, r) }
	dialRaw(t, w, osd.addr, packet(1, &wire.ReadWrite{Op: wire.OpDelete, Version: 3, Trailer: wire.Trailer{Session: 5, Sequence: 6, Low: 7, Deadline: 8}}),
		packet(2, &wire.List{PG: 1, MaxStripe: 77, StableLimit: 9, Flags: wire.ListPrimary}))
	w.Run(time.Second)
	var m wire.ReadWrite
	var list wire.List
	if len(osd.held) != 2 || m.Decode(&osd.held[0].Header) != nil || list.Decode(&osd.held[1].Header) != nil {
		t.Fatal("not served")
	}
	if m.Trailer != (wire.Trailer{}) || m.Version != 3 {
		t.Errorf("a stock client's request came with %+v", m)
	}
	if list.MaxStripe != 77 || list.StableLimit != 9 || list.Flags != wire.ListPrimary {
		t.Errorf("its list came as %+v", list)
	}
}

func TestStockClientWhereNotAllowed(t *testing.T) {
	w := newWorld(t)
	osd := start(t, w, "osd1", 1, nil)
	r := dialRaw(t, w, osd.addr, showConfig(1, `{}`))
	if h, _, ok := r.reply(); !ok || h.Retval() != wire.EACCES {
		t.Fatalf("reply %x, want EACCES", h)
	}
	if !r.ended() {
		t.Fatal("the connection stands")
	}
	r = dialRaw(t, w, osd.addr, packet(1, &wire.Sync{}))
	if !r.ended() || len(r.in) != 0 || len(osd.seen) != 0 {
		t.Fatal("a request without a handshake was answered")
	}
	// Nor may it say that it is an OSD.
	lax := start(t, w, "osd2", 2, func(o *Options) { o.AllowLegacy = anyone })
	r = dialRaw(t, w, lax.addr, showConfig(1, `{"osd_num":3}`))
	if h, _, ok := r.reply(); !ok || h.Retval() != wire.EACCES || !r.ended() {
		t.Fatal("a stock OSD was let in")
	}
}

func TestSequenceIsCheckedWhenAgreed(t *testing.T) {
	w := newWorld(t)
	osd := start(t, w, "osd1", 1, func(o *Options) { o.AllowLegacy = anyone })
	r := dialRaw(t, w, osd.addr, showConfig(5, `{"features":{"check_sequencing":true}}`), packet(6, &wire.Sync{}), packet(8, &wire.Sync{}))
	if !r.ended() || len(osd.seen) != 1 {
		t.Fatalf("%d requests were served, want the one in sequence", len(osd.seen))
	}
	r = dialRaw(t, w, osd.addr, showConfig(5, `{}`), packet(60, &wire.Sync{}), packet(8, &wire.Sync{}))
	w.Run(time.Second)
	if r.closed || len(osd.seen) != 3 {
		t.Fatal("ids are the sender's own when nothing was agreed")
	}
}

func TestKeysMustAgree(t *testing.T) {
	other := func(o *Options) { o.Key = []byte("another") }
	none := func(o *Options) { o.Key = nil }
	for _, c := range []struct {
		name             string
		acceptor, dialer func(*Options)
		say              string
	}{
		{"same", nil, nil, ""},
		{"no keys", none, none, ""},
		{"different", nil, other, "another cluster key"},
		{"dialler has none", nil, none, "cluster key and we have none"},
		{"acceptor has none", none, nil, "no proof of the cluster key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			osd, client := start(t, w, "osd1", 1, c.acceptor), start(t, w, "client", 0, c.dialer)
			client.hub.SetPeer(1, []loop.Addr{osd.addr})
			call := read(0, 4096)
			client.hub.Call(1, call)
			await(t, w, call)
			if c.say == "" {
				if call.Err != nil || osd.seen[0].Authenticated != (c.name == "same") {
					t.Fatalf("error %v, authenticated %t", call.Err, osd.seen[0].Authenticated)
				}
				call.ReplyData.Release()
				return
			}
			if d := disconnected(t, call.Err, false); !errors.Is(d, ErrHandshake) || !strings.Contains(d.Error(), c.say) {
				t.Fatalf("error %v", d)
			}
			if len(osd.seen) != 0 || len(osd.lost) != 0 {
				t.Fatal("the OSD let it in")
			}
		})
	}
}

func TestReplayedHandshakeIsRefused(t *testing.T) {
	w := newWorld(t)
	osd := start(t, w, "osd1", 1, nil)
	// A man in the middle records OSD 2's two rounds with OSD 1.
	nonce, id := strings.Repeat("ab", nonceLen), identity{2, RoleOSD, 77, "osd2"}
	first := &wire.ConfigRequest{OSDNum: 2, Holdfast: &wire.Hello{Version: 1, Role: RoleOSD, Instance: 77, Client: "osd2", Nonce: nonce}}
	round := func(second *wire.ConfigRequest) (*raw, string, bool) {
		r := dialRaw(t, w, osd.addr, hello(t, 1, first))
		_, text, ok := r.reply()
		reply, err := wire.DecodeConfigReply(text)
		if !ok || err != nil {
			t.Fatal("no first reply", err)
		}
		h := reply.Holdfast
		terms := terms{nonce, h.Nonce, id, identity{1, RoleOSD, uint64(h.Instance), h.Client}}
		if terms.check(clusterKey, acceptor, h.Proof) != nil {
			t.Fatal("the acceptor's proof is wrong")
		}
		proof := terms.proof(clusterKey, dialler)
		if second == nil {
			c, hh := *first, *first.Holdfast
			hh.Proof = proof
			c.Holdfast = &hh
			second = &c
		}
		r.send(hello(t, 2, second))
		_, text, ok = r.reply()
		reply, err = wire.DecodeConfigReply(text)
		return r, second.Holdfast.Proof, ok && err == nil && reply.Holdfast.Refused == ""
	}
	_, proof, ok := round(nil)
	if !ok {
		t.Fatal("the genuine handshake was refused")
	}
	again, hh := *first, *first.Holdfast
	hh.Proof = proof
	again.Holdfast = &hh
	r, _, ok := round(&again)
	if ok || !r.ended() {
		t.Fatal("a replayed proof was accepted")
	}
	// The acceptor's own proof, sent back to it.
	r = dialRaw(t, w, osd.addr, hello(t, 1, first))
	_, text, _ := r.reply()
	reply, _ := wire.DecodeConfigReply(text)
	hh.Proof = reply.Holdfast.Proof
	r.send(hello(t, 2, &again))
	if h, text, _ := r.reply(); h.Retval() > 0 {
		if reply, err := wire.DecodeConfigReply(text); err != nil || reply.Holdfast.Refused == "" {
			t.Fatal("a reflected proof was accepted")
		}
	}
}

func TestNobodyTakesTheNumberOfAnotherOSD(t *testing.T) {
	w := newWorld(t)
	osd, client := start(t, w, "osd1", 1, nil), start(t, w, "client", 0, nil)
	client.hub.SetPeer(2, []loop.Addr{osd.addr}) // stale address
	c := read(0, 4096)
	client.hub.Call(2, c)
	await(t, w, c)
	if d := disconnected(t, c.Err, false); !strings.Contains(d.Error(), "OSD 1 answers at the address of OSD 2") {
		t.Fatal(d)
	}
	twin := start(t, w, "osd1b", 1, nil)
	twin.hub.SetPeer(1, []loop.Addr{osd.addr})
	twin.hub.Call(1, c)
	await(t, w, c)
	if d := disconnected(t, c.Err, false); !strings.Contains(d.Error(), "so are we") {
		t.Fatal(d)
	}
}

func TestOSDsMustFit(t *testing.T) {
	for name, change := range map[string]func(*wire.ConfigReply){
		"block_size":         func(c *wire.ConfigReply) { c.BlockSize = 65536 },
		"bitmap_granularity": func(c *wire.ConfigReply) { c.BitmapGranularity = 512 },
		"immediate_commit":   func(c *wire.ConfigReply) { c.ImmediateCommit = wire.CommitSmall },
	} {
		w := newWorld(t)
		a := start(t, w, "osd1", 1, nil)
		b := start(t, w, "osd2", 2, func(o *Options) {
			o.Config = func() wire.ConfigReply {
				c := testConfig()
				change(&c)
				return c
			}
		})
		a.hub.SetPeer(2, []loop.Addr{b.addr})
		c := read(0, 4096)
		a.hub.Call(2, c)
		await(t, w, c)
		if d := disconnected(t, c.Err, false); !strings.Contains(d.Error(), name) {
			t.Fatal(d)
		}
	}
}

func TestOSDIsKnownByNumberAndMayUseItsOpcodes(t *testing.T) {
	w := newWorld(t)
	a, b := start(t, w, "osd1", 1, nil), start(t, w, "osd2", 2, nil)
	a.hub.SetPeer(2, []loop.Addr{b.addr})
	c := &Call{Done: func(*Call) {}}
	(&wire.SecSync{}).Encode(&c.Header)
	a.hub.Call(2, c)
	await(t, w, c)
	if c.Err != nil || c.Reply.Retval() != 0 || b.seen[0].OSD != 1 || b.seen[0].Role != RoleOSD || !b.seen[0].Authenticated {
		t.Fatalf("%v, retval %d", c.Err, c.Reply.Retval())
	}
	info, ok := a.hub.Info(2)
	if !ok || info.Instance != b.hub.o.Instance || info.Config.BlockSize != 131072 {
		t.Fatalf("info %+v", info)
	}
}

func TestHandshakeHasADeadline(t *testing.T) {
	w := newWorld(t)
	osd := start(t, w, "osd1", 1, func(o *Options) { o.AllowLegacy = anyone })
	quiet := dialRaw(t, w, osd.addr)
	half := dialRaw(t, w, osd.addr, packet(1, &wire.Sync{})[:100])
	if !quiet.ended() || !half.ended() {
		t.Fatal("a stranger may stay")
	}
	if d := w.Elapsed(); d > 6*time.Second {
		t.Fatalf("it took %v", d)
	}
}

func TestStrangersDoNotFillTheHub(t *testing.T) {
	w := newWorld(t)
	osd := start(t, w, "osd1", 1, func(o *Options) { o.MaxPending = 4 })
	var all []*raw
	for range 10 {
		all = append(all, dialRaw(t, w, osd.addr))
	}
	w.Run(time.Second)
	refused := 0
	for _, r := range all {
		if r.closed {
			refused++
		}
	}
	if refused != 6 {
		t.Fatalf("%d of 10 were refused, want 6", refused)
	}
	w.Run(10 * time.Second)
	client := start(t, w, "client", 0, nil)
	client.hub.SetPeer(1, []loop.Addr{osd.addr})
	c := read(0, 4096)
	client.hub.Call(1, c)
	await(t, w, c)
	if c.Err != nil || osd.hub.pending != 0 || osd.hub.incoming.n != 1 {
		t.Fatalf("%v; pending %d, incoming %d", c.Err, osd.hub.pending, osd.hub.incoming.n)
	}
	c.ReplyData.Release()
}

func TestGarbageEndsOnlyItsConnection(t *testing.T) {
	long := wire.Header{}
	(&wire.ReadWrite{Op: wire.OpWrite, Len: wire.MaxData + 1}).Encode(&long)
	json := wire.Header{}
	(&wire.ShowConfig{JSONLen: 1 << 40}).Encode(&json)
	versions := wire.Header{}
	(&wire.SecVersions{Op: wire.OpSecRollback, Len: 25}).Encode(&versions)
	reply := wire.Header{}
	(&wire.BareReply{Op: wire.OpRead, Retval: 4096}).Encode(&reply)
	for name, bytes := range map[string][]byte{
		"http":               []byte("GET / HTTP/1.1\r\n\r\n"),
		"zeros":              make([]byte, 4096),
		"absurd write":       long[:],
		"absurd json":        json[:],
		"half an entry":      versions[:],
		"reply to nothing":   reply[:],
		"not json":           showConfig(1, "\x00\xff"),
		"an array":           showConfig(1, "[]"),
		"wrong type":         showConfig(1, `{"osd_num":"x"}`),
		"large json":         showConfig(1, strings.Repeat(" ", 9000)+"{}"),
		"bad nonce":          showConfig(1, `{"holdfast":{"version":1,"role":"client","instance":"0000000000000001","nonce":"zz"}}`),
		"bad version":        showConfig(1, `{"holdfast":{"version":2,"role":"client","instance":"0000000000000001"}}`),
		"client with number": showConfig(1, `{"osd_num":4,"holdfast":{"version":1,"role":"client","instance":"0000000000000001","nonce":"`+strings.Repeat("00", 16)+`"}}`),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			osd := start(t, w, "osd1", 1, func(o *Options) { o.AllowLegacy = anyone })
			client := start(t, w, "client", 0, nil)
			client.hub.SetPeer(1, []loop.Addr{osd.addr})
			client.hub.Connect(1)
			w.Run(time.Second)
			r := dialRaw(t, w, osd.addr, bytes)
			if !w.RunUntil(func() bool { return r.closed }, time.Second) {
				t.Fatal("the connection stands")
			}
			w.Run(time.Second)
			if osd.l.Live() != 0 {
				t.Fatal("a buffer was lent to it")
			}
			c := read(0, 4096)
			client.hub.Call(1, c)
			await(t, w, c)
			if c.Err != nil || len(client.down) != 0 {
				t.Fatal("somebody else was hurt")
			}
			c.ReplyData.Release()
		})
	}
}

// An OSD (or what claims to be one) that answers nonsense.
func TestWrongRepliesEndTheConnection(t *testing.T) {
	ok := func(h *wire.Header) { (&wire.ReadWriteReply{Op: wire.OpRead, Retval: 4096}).Encode(h) }
	for name, change := range map[string]func(h *wire.Header){
		"short":          func(h *wire.Header) { h.SetRetval(512) },
		"long":           func(h *wire.Header) { h.SetRetval(8192) },
		"huge bitmap":    func(h *wire.Header) { h[35] = 0xff },
		"other opcode":   func(h *wire.Header) { h.SetOp(wire.OpWrite) },
		"unknown id":     func(h *wire.Header) { h.SetID(h.ID() + 1) },
		"same id again":  nil,
		"request of it":  func(h *wire.Header) { (&wire.Sync{}).Encode(h) },
		"no packet":      func(h *wire.Header) { h.SetMagic(5) },
		"half the reply": nil,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			osd, client := start(t, w, "osd1", 1, nil), start(t, w, "client", 0, nil)
			client.hub.SetPeer(1, []loop.Addr{osd.addr})
			osd.serve = func(r *Request) {
				var h wire.Header
				ok(&h)
				h.SetID(r.id)
				if change != nil {
					change(&h)
				}
				r.link.conn.Send(h[:])
				switch name {
				case "same id again":
					r.link.conn.Send(make([]byte, 4096))
					r.link.conn.Send(h[:])
				case "half the reply":
					r.link.conn.Send(make([]byte, 2000))
					from := r.From
					w.After(time.Millisecond, func() { from.Close(nil) })
				}
				r.Drop()
			}
			c := read(0, 4096)
			client.hub.Call(1, c)
			await(t, w, c)
			if name == "same id again" {
				c.ReplyData.Release()
			} else {
				disconnected(t, c.Err, true)
			}
			w.Run(100 * time.Millisecond)
			if len(client.down) != 1 || client.l.Live() != 0 {
				t.Fatalf("down %d times, %d buffers left", len(client.down), client.l.Live())
			}
		})
	}
}
