package cli

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"holdfast/appliance/daemon"
	"holdfast/core/admin"
	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/layout"
)

func (a *app) etcd() *cobra.Command {
	c := &cobra.Command{Use: "etcd", Short: "Keep what is in etcd, and put it back"}
	c.AddCommand(a.etcdSnapshot(), a.etcdCheck(), a.etcdRestore(), a.etcdRestored(), a.etcdLost())
	return c
}

func (a *app) etcdRestored() *cobra.Command {
	c := &cobra.Command{
		Use: "restored", Short: "Say that etcd was restored from a backup", Args: args(0, 0, "no arguments"),
		Long: `restored tells the cluster that etcd holds an older state than before: run it after etcd is back and before the OSDs start, or at once if they run.

No PG becomes active until every OSD has reported what its disk knows of the PGs; what the disks know wins over the backup. An OSD that notices the restore by itself does the same, but an
OSD can only notice what its own disk contradicts.`,
		Example: "  holdfast etcd restored",
		RunE: func(c *cobra.Command, _ []string) error {
			var wait []layout.OSDNum
			err := a.change(c.Context(), func(k *daemon.Link, s *cluster.Snapshot, done func(struct{}, error)) {
				draw := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
				admin.DeclareRestored(k.Registry, s, time.Now(), draw, func(list []layout.OSDNum, err error) {
					wait = list
					done(struct{}{}, err)
				})
			})
			if err != nil {
				return err
			}
			if wait == nil {
				wait = []layout.OSDNum{}
			}
			return a.print(map[string]any{"wait_for": wait}, func(w io.Writer) {
				fmt.Fprintf(w, "declared; no PG becomes active until these OSDs have reported: %v\n", wait)
			})
		},
	}
	return a.withParams(a.withJSON(c), config.Client)
}

func (a *app) etcdLost() *cobra.Command {
	c := &cobra.Command{
		Use: "lost OSD", Short: "Give up an OSD that cannot report any more", Args: args(1, 1, "the number of an OSD"),
		Long: `lost gives up the disk of an OSD: after a restore of etcd the cluster no longer waits for what it knows. What was written on that disk alone since the backup is lost. Should the disk
come back, its OSD empties it when no PG needs it.`,
		Example: "  holdfast etcd lost 7",
		RunE: func(c *cobra.Command, words []string) error {
			n, err := strconv.ParseUint(words[0], 10, 53)
			if err != nil || n == 0 {
				return &admin.Error{Kind: admin.Usage, What: words[0] + " is not the number of an OSD", Way: "`holdfast ls-osd` lists them"}
			}
			err = a.change(c.Context(), func(k *daemon.Link, s *cluster.Snapshot, done func(struct{}, error)) {
				admin.DeclareLost(k.Registry, s, layout.OSDNum(n), func(err error) { done(struct{}{}, err) })
			})
			if err != nil {
				return err
			}
			return a.print(map[string]any{"lost": n}, func(w io.Writer) { fmt.Fprintf(w, "OSD %d is given up; its disk will not be trusted\n", n) })
		},
	}
	return a.withParams(a.withJSON(c), config.Client)
}

// change carries out one change of the cluster's state.
func (a *app) change(ctx context.Context, f func(k *daemon.Link, s *cluster.Snapshot, done func(struct{}, error))) error {
	ctx, end := interrupts(ctx)
	defer end()
	_, k, s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer k.Close()
	if _, err := daemon.Await(ctx, k.Thread, func(done func(struct{}, error)) { f(k, s, done) }); err != nil {
		return k.Explain(err)
	}
	return nil
}

// connect reads the configuration, and the state of the cluster that it names. The caller closes the link.
func (a *app) connect(ctx context.Context) (*config.Values, *daemon.Link, *cluster.Snapshot, error) {
	v, err := a.config()
	if err != nil {
		return nil, nil, nil, err
	}
	k, err := daemon.Connect(v, a.quiet(v))
	if err != nil {
		return nil, nil, nil, err
	}
	s, err := k.Snapshot(ctx, admin.Sections)
	if err != nil {
		k.Close()
		return nil, nil, nil, err
	}
	return v, k, s, nil
}
