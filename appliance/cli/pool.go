package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/appliance/daemon"
	"holdfast/core/admin"
	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/layout"
)

func (a *app) createPool() *cobra.Command {
	var n admin.NewPool
	var block, granularity, stripe, code string
	var wait bool
	c := &cobra.Command{
		Use: "create-pool NAME {--pg_size COPIES | --ec DATA+PARITY}", Aliases: []string{"pool-create"}, Short: "Create a pool", Args: args(1, 1, "the name of a pool"),
		Long: "create-pool makes a pool: a number of copies, or of chunks of data and of parity, kept on different nodes of one level of the placement tree. Of DATA+PARITY chunks any PARITY may be lost; " +
			"they take (DATA+PARITY)/DATA of the space of what they hold, and small writes cost more than with copies.",
		Example: "  holdfast create-pool fast --pg_size 3\n  holdfast create-pool two -s 2 -n 64 --failure_domain osd --wait\n  holdfast create-pool big --ec 4+2",
		RunE: func(c *cobra.Command, names []string) error {
			n.Name = names[0]
			for _, one := range []struct {
				flag, text string
				to         *int64
			}{{"block_size", block, &n.BlockSize}, {"bitmap_granularity", granularity, &n.Granularity}, {"pg_stripe_size", stripe, &n.PGStripeSize}} {
				if one.text == "" {
					continue
				}
				v, err := config.ParseBytes(one.text)
				if err != nil {
					return &admin.Error{Kind: admin.Usage, What: "--" + one.flag + " " + one.text, Err: err}
				}
				*one.to = v
			}
			switch given := c.Flags().Changed("pg_size"); {
			case given && code != "":
				return &admin.Error{Kind: admin.Usage, What: "both --pg_size and --ec are given", Way: "give one of them"}
			case code != "":
				if err := parseCode(code, &n); err != nil {
					return &admin.Error{Kind: admin.Usage, What: "--ec " + code, Err: err, Way: "give the chunks of data and of parity, such as 4+2"}
				}
			case n.Replicas == 0:
				return &admin.Error{Kind: admin.Usage, What: "neither --pg_size nor --ec is given", Way: "give the number of copies, such as 3, or of chunks, such as 4+2"}
			}
			return a.makePool(c.Context(), n, wait)
		},
	}
	f := c.Flags()
	f.IntVarP(&n.Replicas, "pg_size", "s", 0, "copies of each object")
	f.StringVar(&code, "ec", "", "erasure-coded, with so many chunks of data and of parity, such as 4+2")
	f.IntVar(&n.MinSize, "pg_minsize", 0, "copies or chunks that must be there for the pool to be served (2 of 3 or more copies, else 1; one more than those of data if there are several of parity, else those of data)")
	f.IntVarP(&n.PGCount, "pg_count", "n", 0, "number of PGs (so many that each OSD has about 32)")
	f.StringVar(&n.FailureDomain, "failure_domain", "host", "level of the tree whose nodes hold one copy or chunk each, such as host or osd")
	f.StringVar(&n.RootNode, "root_node", "", "use only OSDs below this node of the placement tree")
	f.StringSliceVar(&n.OSDTags, "osd_tags", nil, "use only OSDs with all of these tags")
	f.StringVar(&block, "block_size", "", "bytes of an object; OSDs formatted with another are not used (the cluster's)")
	f.StringVar(&granularity, "bitmap_granularity", "", "smallest write (the cluster's)")
	f.StringVar(&stripe, "pg_stripe_size", "", "bytes that follow each other in one PG (an object's)")
	f.StringVar(&n.Commit, "immediate_commit", "", "which writes of clients that keep copies are durable when they are acknowledged: all, small or none (the cluster's)")
	f.StringVar(&n.LocalReads, "local_reads", "", "who answers reads: the primary, or any OSD with a copy, nearest to the client or random: primary, nearest or random (primary)")
	f.BoolVar(&wait, "wait", false, "wait until all PGs are active")
	f.BoolVarP(&n.Force, "force", "f", false, "also when there are too few OSDs now")
	return a.withParams(a.withJSON(c), config.Client)
}

// parseCode reads DATA+PARITY.
func parseCode(text string, n *admin.NewPool) error {
	data, parity, ok := strings.Cut(text, "+")
	if !ok {
		return errors.New("it has no +")
	}
	for _, one := range []struct {
		text string
		to   *int
	}{{data, &n.Data}, {parity, &n.Parity}} {
		v, err := strconv.ParseUint(one.text, 10, 16)
		if err != nil || v == 0 {
			return fmt.Errorf("%q is not a number from 1 on", one.text)
		}
		*one.to = int(v)
	}
	return nil
}

func (a *app) makePool(ctx context.Context, n admin.NewPool, wait bool) error {
	ctx, end := interrupts(ctx)
	defer end()
	v, k, s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer k.Close()
	live := config.NewLive(v, config.Client, slog.New(slog.DiscardHandler))
	live.SetEtcd(s.Global)
	v = live.Values()
	p, err := n.Pool(s)
	if err != nil {
		return err
	}
	id, err := daemon.Await(ctx, k.Thread, func(done func(layout.PoolID, error)) { admin.CreatePool(k.Registry, s, p, done) })
	if err != nil {
		return k.Explain(err)
	}
	p.ID = id
	if wait {
		limit, cancel := context.WithTimeout(ctx, max(time.Minute, v.Duration("client_wait_up_timeout")))
		defer cancel()
		_, err := k.Until(limit, cluster.SectionConfig|cluster.SectionPGs, func(s *cluster.Snapshot) bool {
			active := uint32(0)
			for pg, st := range s.PGStates.All() {
				if pg.Pool == id && st.State&cluster.StateActive != 0 {
					active++
				}
			}
			return active > 0 && active == s.PGConfig.Count(id)
		})
		if err != nil {
			return &admin.Error{Kind: admin.Failed, What: fmt.Sprintf("pool %q was made, but is not active yet", n.Name), Err: err, Way: "`holdfast status` says why"}
		}
	}
	out := map[string]any{"id": uint64(id), "name": p.Name, "scheme": string(p.Scheme), "pg_size": uint64(p.PGSize), "parity_chunks": uint64(p.ParityChunks), "pg_minsize": uint64(p.PGMinSize), "pg_count": uint64(p.PGCount), "failure_domain": p.Domain()}
	return a.print(out, func(w io.Writer) {
		what := fmt.Sprintf("%d copies", uint64(p.PGSize))
		if p.Scheme != cluster.Replicated {
			what = fmt.Sprintf("%d chunks of data and %d of parity", p.DataChunks(), uint64(p.PGSize)-uint64(p.DataChunks()))
		}
		fmt.Fprintf(w, "created pool %q (number %d): %s, at least %d to be served, %d PGs, failure domain %s\n", p.Name, id, what, uint64(p.PGMinSize), uint64(p.PGCount), p.Domain())
	})
}
