package cli

import (
	"context"
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
				if err := parseCode(code, &n.Data, &n.Parity); err != nil {
					return err
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
	f.StringVar(&n.ScrubInterval, "scrub_interval", "", "how often it is scrubbed where auto_scrub is on, such as 7d (scrub_interval of the cluster)")
	f.StringVar(&n.LocalReads, "local_reads", "", "who answers reads: the primary, or any OSD with a copy, nearest to the client or random: primary, nearest or random (primary)")
	f.BoolVar(&wait, "wait", false, "wait until all PGs are active")
	f.BoolVarP(&n.Force, "force", "f", false, "also when there are too few OSDs now")
	return a.withParams(a.withJSON(c), config.Client)
}

// parseCode reads DATA+PARITY.
func parseCode(text string, data, parity *int) error {
	bad := func(format string, args ...any) error {
		return &admin.Error{Kind: admin.Usage, What: "--ec " + text, Err: fmt.Errorf(format, args...), Way: "give the chunks of data and of parity, such as 4+2"}
	}
	left, right, ok := strings.Cut(text, "+")
	if !ok {
		return bad("it has no +")
	}
	for _, one := range []struct {
		text string
		to   *int
	}{{left, data}, {right, parity}} {
		v, err := strconv.ParseUint(one.text, 10, 16)
		if err != nil || v == 0 {
			return bad("%q is not a number from 1 on", one.text)
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
	return a.printPool("created", p)
}

// printPool prints what a pool is now.
func (a *app) printPool(done string, p *cluster.Pool) error {
	out := map[string]any{"id": uint64(p.ID), "name": p.Name, "scheme": string(p.Scheme), "pg_size": uint64(p.PGSize), "parity_chunks": uint64(p.ParityChunks), "pg_minsize": uint64(p.PGMinSize), "pg_count": uint64(p.PGCount), "failure_domain": p.Domain()}
	return a.print(out, func(w io.Writer) {
		what := fmt.Sprintf("%d copies", uint64(p.PGSize))
		if p.Scheme != cluster.Replicated {
			what = fmt.Sprintf("%d chunks of data and %d of parity", p.DataChunks(), uint64(p.PGSize)-uint64(p.DataChunks()))
		}
		fmt.Fprintf(w, "%s pool %q (number %d): %s, at least %d to be served, %d PGs, failure domain %s\n", done, p.Name, p.ID, what, uint64(p.PGMinSize), uint64(p.PGCount), p.Domain())
	})
}

func (a *app) modifyPool() *cobra.Command {
	m := admin.PoolChange{}
	var code, domain, root, reads, scrub string
	var tags []string
	var wait bool
	c := &cobra.Command{
		Use: "modify-pool NAME", Aliases: []string{"pool-modify"}, Short: "Change a pool while it is used", Args: args(1, 1, "the name of a pool"),
		Long: "modify-pool changes how many copies of each object a pool keeps, or how many chunks of parity, and where. The pool stays in use: what is missing is copied or computed in the background, and what is too much is removed " +
			"when all else is whole. Where a PG's chunks of data lie is not changed by another number of parity chunks. What cannot be changed is how objects are cut: the number of chunks of data, whether there are copies or chunks, block_size, " +
			"bitmap_granularity and pg_stripe_size; nor immediate_commit, which clients go by, and pg_count, in this version.",
		Example: "  holdfast modify-pool fast --pg_size 3\n  holdfast modify-pool big --ec 4+3 --wait\n  holdfast modify-pool two --failure_domain host --pg_minsize 2",
		RunE: func(c *cobra.Command, names []string) error {
			m.Name = names[0]
			given := c.Flags().Changed
			for _, flag := range fixed {
				if given(flag) {
					return &admin.Error{Kind: admin.Refused, What: fmt.Sprintf("pool %q: %s of a pool cannot be changed", m.Name, flag), Way: "make another pool and copy the images"}
				}
			}
			if given("pg_size") && (code != "" || m.Replicas == 0) {
				return &admin.Error{Kind: admin.Usage, What: "--pg_size is 0, or --ec is given beside it", Way: "give --pg_size for copies, --ec for chunks"}
			}
			if code != "" {
				if err := parseCode(code, &m.Data, &m.Parity); err != nil {
					return err
				}
			}
			for _, one := range []struct {
				flag string
				text *string
				to   **string
			}{{"failure_domain", &domain, &m.FailureDomain}, {"root_node", &root, &m.RootNode}, {"local_reads", &reads, &m.LocalReads}, {"scrub_interval", &scrub, &m.ScrubInterval}} {
				if given(one.flag) {
					*one.to = one.text
				}
			}
			if given("osd_tags") {
				m.OSDTags = &tags
			}
			return a.changePool(c.Context(), &m, wait)
		},
	}
	f := c.Flags()
	f.IntVarP(&m.Replicas, "pg_size", "s", 0, "copies of each object")
	f.StringVar(&code, "ec", "", "chunks of data, as many as there are, and of parity, such as 4+3")
	f.IntVar(&m.MinSize, "pg_minsize", 0, "copies or chunks that must be there for the pool to be served (as before, or as create-pool has it if that was so before)")
	f.StringVar(&domain, "failure_domain", "", "level of the tree whose nodes hold one copy or chunk each")
	f.StringVar(&root, "root_node", "", "use only OSDs below this node of the placement tree")
	f.StringSliceVar(&tags, "osd_tags", nil, "use only OSDs with all of these tags")
	f.StringVar(&reads, "local_reads", "", "who answers reads: primary, nearest or random")
	f.StringVar(&scrub, "scrub_interval", "", "how often it is scrubbed where auto_scrub is on, such as 7d; empty: as all pools are")
	f.BoolVar(&wait, "wait", false, "wait until all PGs are whole as they should be now")
	f.BoolVarP(&m.Force, "force", "f", false, "also when there are too few OSDs now, or PGs that are not whole")
	for _, flag := range fixed {
		f.String(flag, "", "cannot be changed")
		_ = f.MarkHidden(flag) // it is there
	}
	return a.withParams(a.withJSON(c), config.Client)
}

// fixed are flags of create-pool that modify-pool refuses.
var fixed = []string{"block_size", "bitmap_granularity", "pg_stripe_size", "pg_count", "immediate_commit"}

func (a *app) changePool(ctx context.Context, m *admin.PoolChange, wait bool) error {
	ctx, end := interrupts(ctx)
	defer end()
	_, k, s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer k.Close()
	p, err := daemon.Await(ctx, k.Thread, func(done func(*cluster.Pool, error)) { admin.ModifyPool(k.Registry, s, m, done) })
	if err != nil {
		return k.Explain(err)
	}
	if wait {
		// As long as it takes: that depends on how much there is to copy.
		_, err := k.Until(ctx, cluster.SectionConfig|cluster.SectionPGs, func(s *cluster.Snapshot) bool {
			n := s.PGConfig.Count(p.ID)
			for i := range n {
				id := layout.PGID{Pool: p.ID, Num: i + 1}
				if t, _ := s.PGConfig.Target(id); len(t.OSDSet) != int(p.PGSize) || !admin.Settled(s, id) {
					return false
				}
			}
			return n > 0
		})
		if err != nil {
			return &admin.Error{Kind: admin.Failed, What: fmt.Sprintf("pool %q was changed, but its PGs are not whole yet", p.Name), Err: err, Way: "`holdfast status` says why"}
		}
	}
	return a.printPool("changed", p)
}
