package client

import (
	"slices"
	"strconv"
	"time"

	"holdfast/core/cluster"
	"holdfast/core/layout"
	"holdfast/core/wire"
)

// shunTime is how long a PG's primary is asked after another member had no right to answer.
const shunTime = time.Second

// nearness is how the reader of a pool is chosen.
type nearness uint8

const (
	askPrimary nearness = iota
	askAny
	askNearest
)

// readsOf is what a pool's local_reads says.
func readsOf(p *cluster.Pool) nearness {
	switch {
	case !p.LendsReads():
		return askPrimary
	case p.LocalReads == "nearest":
		return askNearest
	}
	return askAny
}

// mayAsk reports whether a member other than the primary may be asked to read: all of them have everything.
func mayAsk(s *cluster.Snapshot, pg layout.PGID, osd layout.OSDNum) bool {
	st, ok := s.PGStates.Get(pg)
	return ok && st.State.Whole() && slices.Contains(st.Peers, osd)
}

// reader chooses whom to ask for p, of which primary serves the PG.
func (c *Client) reader(p *part, pg layout.PGID, primary layout.OSDNum) layout.OSDNum {
	how := c.pools[pg.Pool].reads
	if how == askPrimary || p.opcode() != wire.OpRead || p.rewrite || p.stay || c.keep.n > 0 || c.shun[pg] > c.l.Now() {
		return primary
	}
	st, _ := c.snap.PGStates.Get(pg)
	if !st.State.Whole() {
		return primary
	}
	best, chosen, same := 0, primary, 0
	for _, osd := range st.Peers {
		if _, up := c.snap.OSDStates.Get(osd); !up {
			continue
		}
		far := 0
		if how == askNearest {
			far = c.far(osd)
		}
		if same > 0 && far > best {
			continue
		}
		if same == 0 || far < best {
			best, same = far, 0
		}
		if same++; c.l.Rand().IntN(same) == 0 { // each of the nearest is as likely
			chosen = osd
		}
	}
	return chosen
}

// leftToPrimary has p, which a member would not answer, asked of the primary. elsewhere says that the member has no right at all.
func (c *Client) leftToPrimary(p *part, elsewhere bool) {
	c.Stats.Redirected++
	if pg, _ := c.primary(p.op.Inode, p.stripe); elsewhere {
		if c.shun[pg] == 0 && len(c.shun) >= maxShunned {
			clear(c.shun)
		}
		c.shun[pg] = c.l.Now().Add(shunTime)
	}
	p.local, p.stay, p.primary = false, true, 0
	if p.op.Err != nil {
		c.endPart(p, nil)
		return
	}
	p.move(partReady)
}

// maxShunned bounds the PGs that are remembered.
const maxShunned = 1 << 14

// far is how many levels of the placement tree lie between us and an OSD, up to their first common node.
func (c *Client) far(osd layout.OSDNum) int {
	if n, ok := c.distance[osd]; ok {
		return n
	}
	n := farOf(c.snap, c.o.Host, osd)
	c.distance[osd] = n
	return n
}

// maxDepth bounds the walk up a placement tree, which may have a loop.
const maxDepth = 64

func farOf(s *cluster.Snapshot, host string, osd layout.OSDNum) int {
	st, ok := s.OSDStates.Get(osd)
	if !ok || host == "" {
		return maxDepth
	}
	parent := func(name string) string { return s.Placement[name].Parent }
	ours := []string{}
	for n := host; n != "" && len(ours) < maxDepth; n = parent(n) {
		ours = append(ours, n)
	}
	at := parent(strconv.FormatUint(uint64(osd), 10))
	if at == "" {
		at = st.Host
	}
	for steps := 0; at != "" && steps < maxDepth; at = parent(at) {
		if i := slices.Index(ours, at); i >= 0 {
			return i // how high the common node is above us
		}
		steps++
	}
	return maxDepth
}
