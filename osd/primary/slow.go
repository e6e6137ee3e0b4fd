package primary

import (
	"fmt"
	"strings"
	"time"

	"holdfast/core/wire"
)

// nameSlow logs a client's operation that is slow, and what it waits for.
func (p *Primary) nameSlow(o *op, age time.Duration) {
	args := []any{"osd", uint64(p.o.Self), "op", o.code.String(), "object", o.id.String(), "offset", o.off, "len", o.len, "session", o.trail.Session, "age", age.Round(time.Millisecond), "slow", p.SlowOps()}
	if o.q != nil {
		args = append(args, "pg", o.q.ID.String(), "waits_for", o.waitsFor())
	}
	if o.r != nil && o.r.From != nil {
		args = append(args, "client", o.r.From.String())
	}
	p.l.Log().Warn("a client's operation is slow", args...)
}

// SlowOps is how many operations have taken longer than slow_log_interval and have no answer yet.
func (p *Primary) SlowOps() int { return p.slow.Slow() }

// waitsFor names what an operation waits for: the part of our own disk's work, the other members that have not answered, or whom those wait for in turn. What a member waits for is in its own log.
func (o *op) waitsFor() string {
	var list []string
	own := func(part string) {
		if part != "" {
			list = append(list, "own disk ("+part+")")
		}
	}
	own(o.p.st.WaitsFor(&o.sop))
	for _, c := range o.calls {
		switch {
		case c.again.Armed():
			list = append(list, fmt.Sprintf("OSD %d (too many versions wait for their commits there)", c.osd))
		case c.c.Active() && !c.c.Sent():
			list = append(list, fmt.Sprintf("the connection to OSD %d", c.osd))
		case c.c.Active():
			list = append(list, fmt.Sprintf("OSD %d", c.osd))
		}
	}
	if o.x != nil {
		for _, io := range o.x.io {
			own(o.p.st.WaitsFor(&io.op))
			switch {
			case io.call.Active() && !io.call.Sent():
				list = append(list, fmt.Sprintf("the connection to OSD %d (chunk %d)", io.osd, io.role))
			case io.call.Active():
				list = append(list, fmt.Sprintf("OSD %d (chunk %d)", io.osd, io.role))
			}
		}
	}
	switch {
	case len(list) > 0:
		return strings.Join(list, ", ")
	case o.waits != nil:
		return "the object to be made whole (recovery)"
	case o.code == wire.OpSync:
		return "the sync of all members"
	case o.resend.Armed():
		return "own disk (too many versions wait for their commits)"
	case o.left > 0:
		return "the members to confirm their grants"
	}
	return "its turn: earlier changes of the object are under way"
}
