package nbd

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"holdfast/frontends/volume/memory"
)

const greeting = `
	4e42444d41474943  # "NBDMAGIC"
	49484156454f5054  # "IHAVEOPT"
	0003              # fixed newstyle, no zeroes
`

// The bytes are put together by hand from NBD proto.md, "Newstyle negotiation" to "Option reply types".
func TestNegotiationBytes(t *testing.T) {
	const (
		opt       = "49484156454f5054 "
		rep       = "0003e889045565a9 "
		exportRO  = "0000 0000000001000000 050f" // NBD_INFO_EXPORT, 16 MiB, flags: has flags, read-only, flush, FUA, multi-conn, cache
		export    = "0000 0000000001000000 0d6d" // without read-only; trim, write zeroes, fast zero
		exportDF  = "0000 0000000001000000 0ded" // and DF
		blockSize = "0003 00000200 00001000 02000000"
		disk      = "00000004 6469736b"
	)
	for _, c := range []struct {
		name    string
		mo      memory.Options
		o       Options
		send    string
		want    string
		closed  bool // by the server, after that
		attachs int
	}{
		{name: "export name with zeroes", send: "00000001" + opt + "00000001 00000004 6469736b",
			want: "0000000001000000 0d6d" + strings.Repeat("00", 124), attachs: 1},
		{name: "export name without zeroes", send: "00000003" + opt + "00000001 00000004 6469736b", want: "0000000001000000 0d6d", attachs: 1},
		{name: "export name, not fixed", send: "00000002" + opt + "00000001 00000004 6469736b", want: "0000000001000000 0d6d", attachs: 1},
		{name: "default export", send: "00000003" + opt + "00000001 00000000", want: "0000000001000000 0d6d", attachs: 1},
		{name: "default export by option", o: Options{Default: "nothing"}, send: "00000003" + opt + "00000001 00000000", closed: true},
		{name: "unknown export name", send: "00000003" + opt + "00000001 00000001 78", closed: true},
		{name: "unknown client flags", send: "00000007", closed: true},
		{name: "wrong option magic", send: "00000003 49484156454f5055 00000003 00000000", closed: true},
		{name: "other option without fixed newstyle", send: "00000000" + opt + "00000003 00000000", closed: true},
		{name: "export name too long", send: "00000003" + opt + "00000001 00001001", closed: true},
		{name: "option far too long", send: "00000003" + opt + "00000003 80000000", closed: true},
		{name: "abort", send: "00000003" + opt + "00000002 00000000", want: rep + "00000002 00000001 00000000", closed: true},
		{name: "list", send: "00000003" + opt + "00000003 00000000",
			want: rep + "00000003 00000002 00000008" + disk + rep + "00000003 00000001 00000000"},
		{name: "go", send: "00000003" + opt + "00000007 0000000a" + disk + "0000",
			want: rep + "00000007 00000003 0000000c" + export + rep + "00000007 00000003 0000000e" + blockSize + rep + "00000007 00000001 00000000", attachs: 1},
		{name: "go after structured replies", send: "00000003" + opt + "00000008 00000000" + opt + "00000007 0000000a" + disk + "0000",
			want: rep + "00000008 00000001 00000000" + rep + "00000007 00000003 0000000c" + exportDF +
				rep + "00000007 00000003 0000000e" + blockSize + rep + "00000007 00000001 00000000", attachs: 1},
		{name: "info of a read-only image, with its name and an unknown request", mo: memory.Options{ReadOnly: true},
			send: "00000003" + opt + "00000006 0000000e" + disk + "0002 0001 0055",
			want: rep + "00000006 00000003 0000000c" + exportRO + rep + "00000006 00000003 0000000e" + blockSize +
				rep + "00000006 00000003 00000006 0001 6469736b" + rep + "00000006 00000001 00000000"},
		{name: "info of a read-only server", o: Options{ReadOnly: true}, send: "00000003" + opt + "00000006 0000000a" + disk + "0000",
			want: rep + "00000006 00000003 0000000c" + exportRO + rep + "00000006 00000003 0000000e" + blockSize + rep + "00000006 00000001 00000000"},
		{name: "two metadata contexts asked for, one known", send: "00000003" + opt + "00000008 00000000" +
			opt + "0000000a 00000026" + disk + "00000002 00000003 783a79 0000000f 626173653a616c6c6f636174696f6e", // "x:y", "base:allocation"
			want: rep + "00000008 00000001 00000000" +
				rep + "0000000a 00000004 00000013 00000001 626173653a616c6c6f636174696f6e" + rep + "0000000a 00000001 00000000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.mo, c.o)
			p := r.dial()
			p.want("greeting", greeting)
			p.send(bin(c.send))
			p.want("replies", c.want)
			if c.closed {
				p.wantClosed()
			} else {
				r.w.Run(time.Second)
				if p.closed || len(p.got) > 0 {
					t.Errorf("closed: %v, further bytes: %x", p.closed, p.got)
				}
			}
			if n := r.disk.Sessions(); n != c.attachs {
				t.Errorf("%d sessions, want %d", n, c.attachs)
			}
			r.end()
		})
	}
}

func TestRefusedOptionsLeaveTheNegotiationGoing(t *testing.T) {
	r := newRig(t, memory.Options{}, Options{})
	p := r.dial()
	p.take(18)
	p.send([]byte{0, 0, 0, 3})
	for _, c := range []struct {
		name string
		kind uint32
		data []byte
		want uint32
	}{
		{"TLS", optStartTLS, nil, repErrUnsup},
		{"extended headers", optExtendedHeaders, nil, repErrUnsup},
		{"peek, withdrawn", 4, nil, repErrUnsup},
		{"unknown", 1000, []byte("whatever"), repErrUnsup},
		{"list with data", optList, []byte{1}, repErrInvalid},
		{"structured replies with data", optStructuredReply, []byte{1}, repErrInvalid},
		{"contexts before structured replies", optListMetaContext, append(str("disk"), 0, 0, 0, 0), repErrInvalid},
		{"go without data", optGo, nil, repErrInvalid},
		{"go with a name beyond the data", optGo, []byte{0, 0, 0, 9, 'd', 0, 0}, repErrInvalid},
		{"go with requests beyond the data", optGo, append(str("disk"), 0, 2, 0, 1), repErrInvalid},
		{"go with too much data", optGo, append(str("disk"), 0, 0, 0), repErrInvalid},
		{"info with a huge name length", optInfo, []byte{0xff, 0xff, 0xff, 0xff, 0, 0}, repErrInvalid},
		{"info with a name that is not UTF-8", optInfo, append(str("\xff\xfe"), 0, 0), repErrInvalid},
		{"info with NUL in the name", optInfo, append(str("a\x00b"), 0, 0), repErrInvalid},
		{"info of nothing", optInfo, append(str("nothing"), 0, 0), repErrUnknown},
		{"go to nothing", optGo, append(str("nothing"), 0, 0), repErrUnknown},
		{"longer than we look at", optInfo, make([]byte, maxOption+1), repErrTooBig},
	} {
		p.send(option(c.kind, c.data))
		if rep, _ := p.optReply(c.kind); rep != c.want {
			t.Errorf("%s: reply %#x, want %#x", c.name, rep, c.want)
		}
	}
	p.send(option(optList, nil))
	if rep, data := p.optReply(optList); rep != repServer || string(data[4:]) != "disk" {
		t.Errorf("list afterwards: %#x %q", rep, data)
	}
	r.end()
}

func TestMetaContexts(t *testing.T) {
	queries := func(name string, q ...string) []byte {
		b := be.AppendUint32(str(name), uint32(len(q)))
		for _, s := range q {
			b = append(b, str(s)...)
		}
		return b
	}
	r := newRig(t, memory.Options{}, Options{})
	r.catalog.Add(memory.New(memory.Options{Name: "other", Size: 1 << 20}))
	for _, c := range []struct {
		name string
		kind uint32
		data []byte
		want string // context id and name, or the reply's type
	}{
		{"list all", optListMetaContext, queries("disk"), "0 base:allocation"},
		{"list a namespace", optListMetaContext, queries("disk", "base:"), "0 base:allocation"},
		{"list another", optListMetaContext, queries("disk", "qemu:"), ""},
		{"list of an unknown export", optListMetaContext, queries("nothing"), "unknown"},
		{"set none", optSetMetaContext, queries("disk"), ""},
		{"set a namespace, which is no wildcard here", optSetMetaContext, queries("disk", "base:"), ""},
		{"set one of two", optSetMetaContext, queries("disk", "x:y", "base:allocation"), "1 base:allocation"},
		{"more queries than data", optSetMetaContext, []byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, "invalid"},
	} {
		p := r.dial()
		p.take(18)
		p.send([]byte{0, 0, 0, 3})
		p.send(option(optStructuredReply, nil))
		p.optReply(optStructuredReply)
		p.send(option(c.kind, c.data))
		got := ""
	replies:
		for {
			rep, data := p.optReply(c.kind)
			switch rep {
			case repMetaContext:
				got += string('0'+data[3]) + " " + string(data[4:])
				continue
			case repErrUnknown:
				got = "unknown"
			case repErrInvalid:
				got = "invalid"
			}
			break replies
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		// The choice holds for the export it was made for only, and only until the next one.
		for _, name := range []string{"other", "disk"} {
			if c.kind != optSetMetaContext || c.want == "" || name == "disk" {
				continue
			}
			p.send(option(optGo, append(str(name), 0, 0)))
			for {
				if rep, _ := p.optReply(optGo); rep == repAck {
					break
				}
			}
			if a := p.do(cmdBlockStatus, 0, 0, 512, nil); a.errno != EINVAL {
				t.Errorf("%s, then another export: block status answers %d, want EINVAL", c.name, a.errno)
			}
		}
	}
	r.end()
}

func TestDefaultExportNeedsToBeTheOnlyOne(t *testing.T) {
	r := newRig(t, memory.Options{}, Options{})
	r.catalog.Add(memory.New(memory.Options{Name: "other", Size: 1 << 20}))
	p := r.dial()
	p.take(18)
	p.send(append([]byte{0, 0, 0, 3}, option(optInfo, append(str(""), 0, 0))...))
	if rep, _ := p.optReply(optInfo); rep != repErrUnknown {
		t.Errorf("info of the default among two: %#x, want %#x", rep, uint32(repErrUnknown))
	}
	r.catalog.Remove("other")
	p.send(option(optInfo, append(str(""), 0, 1, 0, 1)))
	for {
		rep, data := p.optReply(optInfo)
		if rep == repInfo && be.Uint16(data) == infoName && !bytes.Equal(data[2:], []byte("disk")) {
			t.Errorf("the default export is %q, want disk", data[2:])
		}
		if rep == repAck {
			break
		}
		if rep != repInfo {
			t.Fatalf("info of the default: %#x %s", rep, data)
		}
	}
	r.end()
}

func TestSilentClientIsClosed(t *testing.T) {
	r := newRig(t, memory.Options{}, Options{NegotiationTimeout: time.Second})
	p := r.dial()
	p.take(18)
	p.wantClosed()
	q := r.attached(false)
	r.w.Run(time.Minute)
	if q.closed {
		t.Error("a client in the transmission phase was closed too")
	}
	r.end()
}

func TestTooManyConnectionsAreRefused(t *testing.T) {
	r := newRig(t, memory.Options{}, Options{MaxConns: 2})
	a, b := r.dial(), r.dial()
	a.take(18)
	b.take(18)
	c := &peer{r: r}
	c.c = r.clients.Dial(address, c)
	c.wantClosed()
	a.c.Close()
	r.w.Run(time.Second)
	r.dial().take(18)
	if st := r.srv.Stats(); st.Conns != 2 || st.Refused != 1 || st.Accepted != 3 {
		t.Errorf("%+v", st)
	}
	r.end()
}
