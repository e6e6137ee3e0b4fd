package stand

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// NBD is a small client of the fixed newstyle protocol with simple replies (NBD proto.md). It shares no code with the server, and is safe for concurrent use.
type NBD struct {
	c    net.Conn
	Size uint64

	wmu sync.Mutex // one request at a time goes out; taken before mu

	mu      sync.Mutex
	next    uint64              // guarded by mu
	waiting map[uint64]*nbdCall // guarded by mu; by cookie
	err     error               // guarded by mu; the connection has ended
}

type nbdCall struct {
	into []byte
	done chan error
}

// NBDError is an errno that the server answered.
type NBDError uint32

func (e NBDError) Error() string { return fmt.Sprintf("the server answered errno %d", uint32(e)) }

// The errnos that tests ask for.
const (
	EIO    NBDError = 5
	EINVAL NBDError = 22
	ENOSPC NBDError = 28
)

var be = binary.BigEndian

// DialNBD connects to an export.
func DialNBD(address, export string) (*NBD, error) {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return OpenNBD(c, export)
}

// OpenNBD negotiates an export on a connection, which is its own from then on.
func OpenNBD(c net.Conn, export string) (*NBD, error) {
	n := &NBD{c: c, waiting: map[uint64]*nbdCall{}}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if err := n.hello(export); err != nil {
		c.Close()
		return nil, fmt.Errorf("negotiate NBD export %s: %w", export, err)
	}
	_ = c.SetDeadline(time.Time{})
	go n.receive(bufio.NewReaderSize(c, 256<<10))
	return n, nil
}

// hello is the fixed newstyle handshake with NBD_OPT_GO.
func (n *NBD) hello(export string) error {
	var b [18]byte
	if _, err := io.ReadFull(n.c, b[:]); err != nil {
		return err
	}
	if string(b[:16]) != "NBDMAGICIHAVEOPT" || b[17]&1 == 0 {
		return fmt.Errorf("greeting %q", b[:])
	}
	m := []byte{0, 0, 0, 3} // fixed newstyle, no zeroes
	m = append(m, "IHAVEOPT"...)
	m = be.AppendUint32(m, 7) // NBD_OPT_GO
	m = be.AppendUint32(m, uint32(4+len(export)+2))
	m = be.AppendUint32(m, uint32(len(export)))
	m = append(m, export...)
	m = append(m, 0, 0) // no information asked for
	if _, err := n.c.Write(m); err != nil {
		return err
	}
	for {
		var h [20]byte
		if _, err := io.ReadFull(n.c, h[:]); err != nil {
			return err
		}
		kind, length := be.Uint32(h[12:]), be.Uint32(h[16:])
		if length > 64<<10 {
			return fmt.Errorf("option reply of %d bytes", length)
		}
		p := make([]byte, length)
		if _, err := io.ReadFull(n.c, p); err != nil {
			return err
		}
		switch {
		case kind == 1: // NBD_REP_ACK
			return nil
		case kind>>31 == 1:
			return fmt.Errorf("option refused with %#x: %s", kind, p)
		case kind == 3 && len(p) >= 12 && be.Uint16(p) == 0: // NBD_INFO_EXPORT
			n.Size = be.Uint64(p[2:])
		}
	}
}

func (n *NBD) receive(r io.Reader) {
	err := func() error {
		for {
			var h [16]byte
			if _, err := io.ReadFull(r, h[:]); err != nil {
				return err
			}
			if be.Uint32(h[:]) != 0x67446698 {
				return fmt.Errorf("reply magic %x", h[:4])
			}
			cookie := be.Uint64(h[8:])
			n.mu.Lock()
			call := n.waiting[cookie]
			delete(n.waiting, cookie)
			n.mu.Unlock()
			if call == nil {
				return fmt.Errorf("answer to unknown request %d", cookie)
			}
			if e := be.Uint32(h[4:]); e != 0 {
				call.done <- NBDError(e)
				continue
			}
			if _, err := io.ReadFull(r, call.into); err != nil {
				call.done <- err
				return err
			}
			call.done <- nil
		}
	}()
	n.fail(err)
}

func (n *NBD) fail(err error) {
	n.c.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		n.err = fmt.Errorf("NBD connection: %w", err)
	}
	for cookie, call := range n.waiting {
		delete(n.waiting, cookie)
		call.done <- n.err
	}
}

func (n *NBD) call(command, flags uint16, offset uint64, length int, data, into []byte) error {
	call := &nbdCall{into: into, done: make(chan error, 1)}
	n.mu.Lock()
	if n.err != nil {
		n.mu.Unlock()
		return n.err
	}
	n.next++
	cookie := n.next
	n.waiting[cookie] = call
	n.mu.Unlock()
	m := be.AppendUint32(make([]byte, 0, 28+len(data)), 0x25609513)
	m = be.AppendUint16(m, flags)
	m = be.AppendUint16(m, command)
	m = be.AppendUint64(m, cookie)
	m = be.AppendUint64(m, offset)
	m = be.AppendUint32(m, uint32(length))
	m = append(m, data...)
	n.wmu.Lock()
	_, err := n.c.Write(m)
	n.wmu.Unlock()
	if err != nil {
		n.fail(err)
	}
	return <-call.done
}

// ReadAt reads len(p) bytes.
func (n *NBD) ReadAt(p []byte, off int64) (int, error) {
	if err := n.call(0, 0, uint64(off), len(p), nil, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteAt writes p.
func (n *NBD) WriteAt(p []byte, off int64) (int, error) {
	if err := n.call(1, 0, uint64(off), len(p), p, nil); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush makes writes that were answered durable.
func (n *NBD) Flush() error { return n.call(3, 0, 0, 0, nil, nil) }

// Trim makes a hole.
func (n *NBD) Trim(off int64, length int) error { return n.call(4, 0, uint64(off), length, nil, nil) }

// Close ends the connection without a word.
func (n *NBD) Close() { n.fail(errors.New("closed")) }
