package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/appliance/allinone"
	"holdfast/appliance/daemon"
	"holdfast/appliance/etcdsnapshot"
	"holdfast/core/admin"
	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/layout"
)

// saved is what is said of a snapshot.
type saved struct {
	File     string    `json:"file"`
	Cluster  string    `json:"cluster_id"`
	Revision uint64    `json:"revision"`
	Time     time.Time `json:"time"`
	Keys     int       `json:"keys"`
	Pools    int       `json:"pools"`
	Images   int       `json:"images"`
	OSDs     int       `json:"osds"`
	PGs      int       `json:"pgs"` // with a record
}

func savedOf(path string, s *etcdsnapshot.Snapshot) saved {
	v := saved{File: path, Cluster: s.Cluster, Revision: uint64(s.Revision), Time: s.Time, Keys: s.Keys}
	for _, kv := range s.KVs {
		k, _ := cluster.ParseKey(kv.Key)
		switch k.Kind {
		case cluster.KindPools:
			pools, _, _ := cluster.ReadPools(kv.Value)
			v.Pools = len(pools)
		case cluster.KindInode:
			v.Images++
		case cluster.KindOSDIdentity:
			v.OSDs++
		case cluster.KindPGRecord:
			v.PGs++
		}
	}
	return v
}

func (v saved) write(w io.Writer) {
	fmt.Fprintf(w, "%s: whole\n", v.File)
	table(w, [][]string{
		{"  cluster", v.Cluster},
		{"  time", fmt.Sprintf("%s, %s ago", v.Time.Format("2006-01-02 15:04:05 UTC"), time.Since(v.Time).Truncate(time.Second))},
		{"  revision", num(v.Revision)},
		{"  keys", fmt.Sprintf("%d: %d pools, %d images, %d OSDs, records of %d PGs", v.Keys, v.Pools, v.Images, v.OSDs, v.PGs)},
	})
}

func (a *app) etcdSnapshot() *cobra.Command {
	c := &cobra.Command{
		Use: "snapshot [FILE]", Short: "Write what is in etcd into a file, now", Args: args(0, 1, "at most one file"),
		Long: `snapshot writes every key of the cluster at one revision, but for those that say who runs, into a file of readable lines, and reads it back. Monitors do the same by themselves every
etcd_snapshot_interval; ` + "`holdfast status`" + ` names their newest. Without FILE its name is made of the cluster, the time and the revision, in the present folder.`,
		Example: "  holdfast etcd snapshot\n  holdfast etcd snapshot /backup/etcd.json",
		RunE: func(c *cobra.Command, names []string) error {
			ctx, end := interrupts(c.Context())
			defer end()
			v, err := a.config()
			if err != nil {
				return err
			}
			k, err := daemon.Connect(v, a.quiet(v))
			if err != nil {
				return err
			}
			defer k.Close()
			s, err := etcdsnapshot.Take(ctx, k, time.Now())
			switch {
			case errors.Is(err, etcdsnapshot.ErrEmpty):
				return &admin.Error{Kind: admin.NotFound, What: "there is nothing to keep", Err: err, Way: "is --config or --etcd_address right, and etcd_prefix?"}
			case errors.Is(err, etcdsnapshot.ErrHalf):
				return &admin.Error{Kind: admin.Refused, What: "nothing is kept of half of the keys", Err: err, Way: "run `holdfast etcd restore` with that file again"}
			case err != nil:
				return err
			}
			path := s.Name()
			if len(names) > 0 {
				path = names[0]
			}
			if err := s.Write(path); err != nil {
				if errors.Is(err, fs.ErrExist) {
					return &admin.Error{Kind: admin.Refused, What: path + " exists already", Way: "give another name"}
				}
				return &admin.Error{Kind: admin.Failed, What: "cannot write " + path, Err: err}
			}
			out := savedOf(path, s)
			return a.print(out, out.write)
		},
	}
	return a.withParams(a.withJSON(c), config.Client)
}

func (a *app) etcdCheck() *cobra.Command {
	c := &cobra.Command{
		Use: "check FILE", Short: "Check a snapshot of etcd", Args: args(1, 1, "a file"),
		Long:    "check reads a snapshot, checks all of it, and says what it is of. It needs no cluster. A file that is not whole is an error.",
		Example: "  holdfast etcd check /var/lib/holdfast/snapshots/etcd-83b61c2e-20261122T110000Z-r4711.json",
		RunE: func(_ *cobra.Command, names []string) error {
			s, err := readSnapshot(names[0])
			if err != nil {
				return err
			}
			out := savedOf(names[0], s)
			return a.print(out, out.write)
		},
	}
	return a.withJSON(c)
}

func readSnapshot(path string) (*etcdsnapshot.Snapshot, error) {
	s, err := etcdsnapshot.Read(path)
	var damaged *etcdsnapshot.DamagedError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &admin.Error{Kind: admin.NotFound, What: "there is no file " + path, Way: "`holdfast status` names the newest while the cluster runs; they are in etcd_snapshot_dir on the monitors' hosts"}
	case errors.As(err, &damaged):
		return nil, &admin.Error{Kind: admin.Failed, What: path + " is not a whole snapshot of etcd", Err: damaged, Way: "take another one"}
	}
	return s, err
}

// leaseSlack is by how much leases outlive their time when etcd was started anew: it gives each its whole time again, and counts it in its elections.
const leaseSlack = 10 * time.Second

// restored is the result of `etcd restore`.
type restored struct {
	saved
	Running  []string        `json:"running"`  // keys of daemons that have to be stopped first
	Replaces int             `json:"replaces"` // keys that go or change
	Cluster  string          `json:"replaces_cluster,omitempty"`
	Resumes  bool            `json:"resumes"` // one that was interrupted
	Missing  int             `json:"puts"`
	Kept     string          `json:"kept_as,omitempty"` // a snapshot of what was replaced
	Done     bool            `json:"done"`
	WaitFor  []layout.OSDNum `json:"wait_for"`
}

func (a *app) etcdRestore() *cobra.Command {
	var sure, replace bool
	var dir string
	c := &cobra.Command{
		Use: "restore FILE", Short: "Put a snapshot of etcd back", Args: args(1, 1, "a file"),
		Long: `restore puts a snapshot into an etcd that has lost what it held: a new, empty one. Without --yes it only says what it would do, and exits with 4.

Stop all daemons of the cluster first: OSDs, monitors, gateways; restore refuses while it sees one. It declares the restore: no PG becomes active until every OSD has reported what its
disk knows of the PGs, and what the disks know wins over the snapshot. Then start the daemons.

Interrupted, etcd holds half of the keys and says so, and nothing is served by it: run restore with the same file again.

--replace allows that etcd holds other things: keys that are not in the snapshot go, those that differ are changed. They are written into a file beside FILE before.

--dir puts it into the cluster of ` + "`holdfast up`" + `, which has to be stopped. If its etcd is damaged, move the folder etcd in it away first.`,
		Example: "  holdfast etcd restore etcd-83b61c2e-20261122T110000Z-r4711.json\n  holdfast etcd restore --yes FILE\n  holdfast etcd restore --yes --dir ./data ./data/snapshots/FILE",
		RunE: func(c *cobra.Command, names []string) error {
			ctx, end := interrupts(c.Context())
			defer end()
			s, err := readSnapshot(names[0])
			if err != nil {
				return err
			}
			if dir != "" {
				return allinone.WithEtcd(ctx, dir, func(v *config.Values) error { return a.restore(ctx, v, s, names[0], sure, replace, true) })
			}
			v, err := a.config()
			if err != nil {
				return err
			}
			return a.restore(ctx, v, s, names[0], sure, replace, false)
		},
	}
	c.Flags().BoolVar(&sure, "yes", false, "do it")
	c.Flags().BoolVar(&replace, "replace", false, "also if etcd holds other things, which go")
	c.Flags().StringVar(&dir, "dir", "", "the folder of `holdfast up`")
	return a.withParams(a.withJSON(c), config.Client)
}

// restore puts s into etcd. When nothing of the cluster can be running, alone, keys of leases are those of processes that were killed, and it waits for them to go.
func (a *app) restore(ctx context.Context, v *config.Values, s *etcdsnapshot.Snapshot, path string, sure, replace, alone bool) error {
	k, err := daemon.Connect(v, a.quiet(v))
	if err != nil {
		return err
	}
	defer k.Close()
	x := s.Open(k)
	limit := time.Now().Add(v.Duration("etcd_lease_ttl") + v.Duration("etcd_mon_ttl") + leaseSlack)
	for {
		if err := x.Look(ctx); err != nil {
			return err
		}
		if len(x.Running) == 0 || !alone || time.Now().After(limit) {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	out := restored{saved: savedOf(path, s), Running: x.Running, Replaces: len(x.Other), Resumes: x.Same, Missing: x.Missing, WaitFor: []layout.OSDNum{}}
	if out.Running == nil {
		out.Running = []string{}
	}
	if x.Cluster != "" && x.Cluster != s.Cluster {
		out.Cluster = x.Cluster
	}
	refuse := func(what, way string) error {
		if a.json {
			if err := a.print(out, nil); err != nil {
				return err
			}
		}
		return &admin.Error{Kind: admin.Refused, What: what, Way: way}
	}
	where := "etcd at " + strings.Join(v.List("etcd_address"), ",")
	switch {
	case len(x.Running) > 0:
		return refuse(fmt.Sprintf("daemons run on %s: %s", where, few(x.Running)), "stop every OSD, monitor and gateway of the cluster, and run it again; the key of one that was killed goes within etcd_lease_ttl")
	case len(x.Other) > 0 && !replace:
		of := ""
		if out.Cluster != "" {
			of = " of another cluster, " + out.Cluster + ","
		}
		if x.Begun != nil && !x.Same {
			of = " of the restore of " + x.Begun.File + " that was begun and has not ended,"
		}
		return refuse(fmt.Sprintf("%s is not empty: %d keys%s would go or be changed: %s", where, len(x.Other), of, few(x.Other)), "restore into an empty etcd; or, if what it holds is to go, add --replace")
	case !sure:
		if !a.json {
			out.write(a.out)
			fmt.Fprintf(a.out, "%s: %d keys would be put, %d would go or be changed\n", where, x.Missing, len(x.Other))
		}
		return refuse("nothing was done", "--yes does it")
	}
	if len(x.Other) > 0 && !x.Same {
		if before := x.Before(time.Now()); before != nil {
			out.Kept = filepath.Join(filepath.Dir(path), "replaced-"+before.Name())
			if err := before.Write(out.Kept); err != nil && !errors.Is(err, fs.ErrExist) {
				return &admin.Error{Kind: admin.Failed, What: "cannot keep what is replaced; nothing was done", Err: err, Way: "put FILE into a folder that this user may write"}
			}
		}
	}
	said := time.Now()
	id := strconv.FormatUint(rand.Uint64()|1, 16)
	out.WaitFor, err = x.Run(ctx, id, filepath.Base(path), time.Now(), func(what string, done, of int) {
		if now := time.Now(); !a.json && now.Sub(said) > time.Second {
			said = now
			fmt.Fprintf(a.err, "%s: %d of %d keys\n", what, done, of)
		}
	})
	if err != nil {
		return &admin.Error{Kind: kindOf(err), What: "the restore has not ended", Err: err, Way: "run it again with the same file: until then nothing is served by this etcd"}
	}
	out.Done = true
	return a.print(out, func(w io.Writer) {
		fmt.Fprintf(w, "%s holds the snapshot of %s, %d keys\n", where, s.Time.Format("2006-01-02 15:04:05 UTC"), s.Keys)
		if out.Kept != "" {
			fmt.Fprintf(w, "what was there before: %s\n", out.Kept)
		}
		fmt.Fprintf(w, "start all daemons; no PG becomes active until these OSDs have reported: %v\n", out.WaitFor)
	})
}

// kindOf is the kind of an error that is wrapped in another one.
func kindOf(err error) admin.Kind {
	var e *admin.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return admin.Failed
}

// few names some of a list.
func few(list []string) string {
	if len(list) <= 5 {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:5], ", "), len(list)-5)
}
