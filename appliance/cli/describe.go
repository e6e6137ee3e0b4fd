package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/core/admin"
	"holdfast/core/blocking"
	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/layout"
)

// objectFilter says which objects that are not whole are told of.
type objectFilter struct {
	states             []string
	osds               []uint
	inode, from, to    uint64 // without the pool
	fromOffset, toward uint64
	most               int
}

// describeTime is how long the primaries of all PGs may take to answer, unless all objects are asked for.
const describeTime = 10 * time.Second

func (a *app) describe() *cobra.Command {
	var f admin.PGFilter
	var o objectFilter
	c := &cobra.Command{
		Use: "describe [PG...]", Short: "Why PGs wait and objects are not whole, and on whom it hangs", Args: args(0, -1, "PGs"),
		Long: "describe tells of PGs, named as POOL/NUMBER, why they wait or are not whole, what would help, and what every OSD has to do with it. Without names it tells of all that are not active and whole. " +
			"Of PGs that are served it lists the objects that are not whole, with the state of every copy, why, and what would help.",
		Example: "  holdfast describe\n  holdfast describe 1/7\n  holdfast describe --osd 2 --json\n  holdfast describe --object-state incomplete,corrupted --limit 0",
		RunE: func(c *cobra.Command, names []string) error {
			mask, err := admin.ObjectState(o.states)
			if err != nil {
				return err
			}
			s, err := a.snapshot(c)
			if err != nil {
				return err
			}
			list, err := admin.Describe(s, names, f)
			if err != nil {
				return err
			}
			a.describeObjects(c.Context(), s, list, o, mask)
			return a.print(list, func(w io.Writer) { writeDescribed(w, list) })
		},
	}
	c.Flags().StringVarP(&f.Pool, "pool", "p", "", "only PGs of this pool")
	c.Flags().Uint64Var(&f.OSD, "osd", 0, "only PGs whose set holds this OSD")
	c.Flags().StringSliceVar(&o.states, "object-state", nil, "only objects in one of these states: degraded, misplaced, incomplete, corrupted, inconsistent")
	c.Flags().UintSliceVar(&o.osds, "osds", nil, "only objects that have, or are to have, a copy on one of these OSDs")
	c.Flags().Uint64Var(&o.inode, "inode", 0, "only objects of the image or layer with this number (inode_id)")
	c.Flags().Uint64Var(&o.from, "min-inode", 0, "only objects of images and layers from this number on")
	c.Flags().Uint64Var(&o.to, "max-inode", 0, "and up to this number")
	c.Flags().Uint64Var(&o.fromOffset, "min-offset", 0, "only objects from this offset on, in the first image or layer")
	c.Flags().Uint64Var(&o.toward, "max-offset", 0, "and up to this offset in the last one")
	c.Flags().IntVar(&o.most, "limit", 20, "objects of each PG at most; 0: all")
	return a.withParams(a.withJSON(c), config.Client)
}

// query is the question for a pool's PGs.
func (o *objectFilter) query(pool layout.PoolID, states client.ObjectState) client.Query {
	from, to := o.from, o.to
	if o.inode != 0 {
		from, to = o.inode, o.inode
	}
	if to == 0 {
		to = layout.MaxInodeNum
	}
	q := client.Query{States: states, Most: o.most,
		From: layout.ObjectID{Inode: layout.MakeInode(pool, min(from, layout.MaxInodeNum)), Stripe: o.fromOffset}, To: layout.ObjectID{Inode: layout.MakeInode(pool, min(to, layout.MaxInodeNum)), Stripe: o.toward}}
	if len(o.osds) > 0 {
		q.Most = 0 // they are chosen afterwards
	}
	return q
}

// about leaves only the objects that have to do with the OSDs asked for.
func (o *objectFilter) about(list []admin.Object) []admin.Object {
	if len(o.osds) == 0 {
		return list
	}
	return slices.DeleteFunc(list, func(v admin.Object) bool {
		return !slices.ContainsFunc(v.Copies, func(c admin.Copy) bool { return slices.Contains(o.osds, uint(c.OSD)) })
	})
}

// describeObjects has the primaries of PGs that are served tell of their objects. What an OSD does not tell is said of its PG.
func (a *app) describeObjects(parent context.Context, s *cluster.Snapshot, list []admin.Described, o objectFilter, states client.ObjectState) {
	var ask []*admin.Described
	for i := range list {
		if slices.Contains(list[i].State, "active") {
			ask = append(ask, &list[i])
		}
	}
	if len(ask) == 0 {
		return
	}
	ctx := parent
	if o.most > 0 { // all of them are as many as there are
		var end context.CancelFunc
		ctx, end = context.WithTimeout(parent, describeTime)
		defer end()
	}
	err := a.withClient(ctx, func(ctx context.Context, conn *blocking.Conn, _ *config.Values) error {
		for _, v := range ask {
			id := layout.PGID{Pool: layout.PoolID(v.PoolID), Num: uint32(v.Num)}
			var found []client.Unclean
			err := conn.Do(ctx, func(c *client.Client, _ *client.Session, done func(error)) {
				c.Describe(id, o.query(id.Pool, states), func(list []client.Unclean, more bool, err error) {
					found, v.UncleanMore = list, more
					done(err)
				})
			})
			if err != nil {
				v.UncleanError = err.Error()
				continue
			}
			v.Unclean = o.about(admin.Objects(s, found))
			if n := len(v.Unclean); o.most > 0 && n > o.most {
				v.Unclean, v.UncleanMore = v.Unclean[:o.most], true
			}
		}
		return nil
	})
	if err != nil {
		for _, v := range ask {
			if v.UncleanError == "" && len(v.Unclean) == 0 {
				v.UncleanError = err.Error()
			}
		}
	}
}

// writeDescribed writes a paragraph for each PG.
func writeDescribed(w io.Writer, list []admin.Described) {
	if len(list) == 0 {
		fmt.Fprintln(w, "every PG is active and whole")
	}
	for i, p := range list {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "pg %d/%d of pool %s: %s\n", p.PoolID, p.Num, p.Pool, strings.Join(p.State, "+"))
		if p.Reason != "" {
			fmt.Fprintf(w, "  %s\n", p.Reason)
		}
		objects := fmt.Sprintf("%d", p.Objects)
		for _, n := range []struct {
			count uint64
			word  string
		}{{p.Clean, "clean"}, {p.Degraded, "degraded"}, {p.Misplaced, "misplaced"}, {p.Incomplete - min(p.Incomplete, p.Unfound), "incomplete"}, {p.Unfound, "unfound"}, {p.Corrupted, "corrupted"}, {p.Inconsistent, "inconsistent"}} {
			if n.count > 0 {
				objects += fmt.Sprintf(", %d %s", n.count, n.word)
			}
		}
		rows := [][]string{{"  objects", objects}}
		if p.RecoveryLeft > 0 {
			rows = append(rows, []string{"  to recover", fmt.Sprintf("%d of %d", p.RecoveryLeft, p.RecoveryTotal)})
		}
		if p.Scrub != nil {
			rows = append(rows, []string{"  scrub", p.Scrub.Progress()})
		}
		if p.Verified != "" || p.NextScrub != "" {
			rows = append(rows, []string{"  last verified", cmp.Or(p.Verified, "never") + map[bool]string{true: "; next scrub " + p.NextScrub}[p.NextScrub != ""]})
		}
		interval := fmt.Sprintf("%d, which serves", p.Interval)
		if p.Interval != p.Activated {
			interval = fmt.Sprintf("%d; the last that served was %d", p.Interval, p.Activated)
		}
		rows = append(rows, []string{"  interval", interval})
		for _, set := range p.Sets {
			rows = append(rows, []string{"  written by", fmt.Sprintf("%s in interval %d: one of them has to be heard", numbers(set.OSDs), set.Interval)})
		}
		for _, o := range p.OSDs {
			rows = append(rows, []string{fmt.Sprintf("  OSD %d", o.Num), o.Text()})
		}
		table(w, rows)
		writeObjects(w, &p)
	}
}

// writeObjects writes a line for each object that is not whole.
func writeObjects(w io.Writer, p *admin.Described) {
	for _, o := range p.Unclean {
		name := o.Image
		if name == "" {
			name = fmt.Sprintf("inode %d", o.InodeID)
		}
		copies := make([]string, len(o.Copies))
		for i, c := range o.Copies {
			copies[i] = fmt.Sprintf("%d %s", c.OSD, c.State)
		}
		fmt.Fprintf(w, "  object %s at %d: %s (on OSDs %s): %s\n", name, o.Offset, strings.Join(o.State, "+"), strings.Join(copies, ", "), o.Reason)
	}
	if p.UncleanMore {
		fmt.Fprintln(w, "  and more objects; --limit 0 lists all of them")
	}
	if p.UncleanError != "" {
		fmt.Fprintf(w, "  its objects are not known: %s\n", p.UncleanError)
	}
}
