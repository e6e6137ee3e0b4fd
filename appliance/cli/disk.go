package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"holdfast/appliance/bootstrap"
	"holdfast/appliance/daemon"
	"holdfast/core/admin"
	"holdfast/core/config"
	"holdfast/core/loop"
	"holdfast/osd/store"
)

func (a *app) disk() *cobra.Command {
	c := &cobra.Command{
		Use: "disk", Short: "Format and look at the disks of OSDs", Args: args(1, 1, "format, dump, check or accept"),
		RunE: func(c *cobra.Command, args []string) error {
			return &admin.Error{Kind: admin.Usage, What: "there is no command disk " + args[0], Way: "`holdfast disk --help` lists them"}
		},
	}
	c.AddCommand(a.diskFormat(), a.diskDump(), a.diskCheck(), a.diskAccept())
	return c
}

// superblock is what is said of a formatted disk.
type superblock struct {
	Device    string `json:"device"`
	StoreID   string `json:"store_id"`
	Format    uint32 `json:"format"`
	Size      uint64 `json:"size"` // bytes of data blocks
	Blocks    uint64 `json:"blocks"`
	BlockSize uint32 `json:"block_size"`
	Unit      uint32 `json:"bitmap_granularity"`
	Checksum  string `json:"data_csum_type"`
	Journal   int64  `json:"journal_size"`
	Boot      uint64 `json:"boot"`
	Meta      string `json:"meta_device,omitempty"`    // if it is another one
	JournalOn string `json:"journal_device,omitempty"` // the same
}

func describe(disks daemon.Disks, sb *store.Superblock) superblock {
	s := superblock{Device: disks.Data, StoreID: sb.StoreID.String(), Format: sb.Version, Size: sb.Blocks * uint64(sb.Config.BlockSize), Blocks: sb.Blocks, BlockSize: sb.Config.BlockSize,
		Unit: sb.Config.Granularity, Checksum: sb.Config.ChecksumType.String(), Journal: sb.Journal.Len, Boot: sb.Boot}
	paths := disks.Paths()
	if k := sb.Meta.Device; k > 0 {
		s.Meta = paths[k]
	}
	if k := sb.Journal.Device; k > 0 {
		s.JournalOn = paths[k]
	}
	return s
}

func (a *app) diskFormat() *cobra.Command {
	var text string
	var force bool
	c := &cobra.Command{
		Use: "format DEVICE", Short: "Make an empty OSD of a block device or a file", Args: args(1, 1, "a device or a file"),
		Long: `format writes a new store, with an identity of its own. A device that holds one already is refused unless --force is given: then everything on it is lost.

With --meta_device and --journal_device the metadata and the journal go to faster devices, such as partitions of an SSD. They belong to the OSD from then on: without one of them the whole
OSD is lost. Name them whenever the OSD is started or looked at.

An OSD whose disk was formatted again is refilled from the other copies.`,
		Example: "  holdfast disk format /dev/sdb\n  holdfast disk format --size 10G ./osd.4.data\n  holdfast disk format --force /dev/sdb\n  holdfast disk format --block_size 1M --journal_size 1G --meta_device /dev/nvme0n1p2 /dev/sdc",
		RunE: func(c *cobra.Command, names []string) error {
			ctx, end := interrupts(c.Context())
			defer end()
			path := names[0]
			v, err := a.config()
			if err != nil {
				return err
			}
			if text != "" {
				n, err := config.ParseBytes(text)
				if err != nil || n <= 0 {
					return &admin.Error{Kind: admin.Usage, What: "--size " + text, Err: err, Way: "give a size such as 10G"}
				}
				if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Size() != 0 && st.Size() != n {
					return &admin.Error{Kind: admin.Refused, What: fmt.Sprintf("%s exists and has %s", path, admin.Size(st.Size())), Way: "leave --size out, or give another file"}
				}
				if err := bootstrap.MakeFile(path, n&^4095); err != nil {
					return err
				}
			}
			t, err := daemon.NewThread(v.String("loop"), "disk", a.quiet(v))
			if err != nil {
				return err
			}
			defer t.Stop()
			cfg := bootstrap.StoreConfig(v)
			cfg.Force = force
			disks := daemon.DisksOf(v, path)
			sb, err := bootstrap.Format(ctx, t, v, disks, cfg)
			if err != nil {
				return err
			}
			out := describe(disks, &sb)
			return a.print(out, func(w io.Writer) {
				fmt.Fprintf(w, "formatted %s: %s of data in blocks of %s, journal %s, store %s\n", strings.Join(disks.Paths(), ", "), size(out.Size), size(uint64(out.BlockSize)), admin.Size(out.Journal), out.StoreID)
			})
		},
	}
	c.Flags().StringVar(&text, "size", "", "make a file of this size first")
	c.Flags().BoolVarP(&force, "force", "f", false, "format although a store is there: what it holds is lost")
	return a.withParams(a.withJSON(c), config.OSD, "block_size", "bitmap_granularity", "journal_size", "data_csum_type", "meta_device", "journal_device", "disk_alignment")
}

// onDisk runs f with a disk that is opened for reading only. A disk that a running OSD holds is refused: what would be read is neither old nor new.
func onDisk[T any](a *app, ctx context.Context, path string, f func(t *daemon.Thread, d loop.Disk, done func(T, error))) (out T, err error) {
	v, err := a.config()
	if err != nil {
		return out, err
	}
	t, err := daemon.NewThread(v.String("loop"), "disk", a.quiet(v))
	if err != nil {
		return out, err
	}
	defer t.Stop()
	return bootstrap.OnDisk(ctx, t, v, daemon.DisksOf(v, path), true, func(d loop.Disk, done func(T, error)) { f(t, d, done) })
}

func (a *app) diskDump() *cobra.Command {
	c := &cobra.Command{
		Use: "dump DEVICE", Short: "Print what is on an OSD's disk", Args: args(1, 1, "a device or a file"),
		Long:    "dump prints the superblock, the journal, the objects and the PG records of a disk that no OSD uses now. With --json every line is a JSON object. It changes nothing.",
		Example: "  holdfast disk dump ./data/osd.1.data | less\n  holdfast disk dump --json ./data/osd.1.data",
		RunE: func(c *cobra.Command, names []string) error {
			ctx, end := interrupts(c.Context())
			defer end()
			w := bufio.NewWriterSize(a.out, 1<<20)
			_, err := onDisk(a, ctx, names[0], func(t *daemon.Thread, d loop.Disk, done func(struct{}, error)) {
				store.Dump(t, d, w, a.json, func(err error) { done(struct{}{}, err) })
			})
			return errors.Join(w.Flush(), diskProblem(names[0], err))
		},
	}
	return a.withParams(a.withJSON(c), config.OSD, "meta_device", "journal_device")
}

// diskProblem explains what is wrong with a disk that was looked at.
func diskProblem(path string, err error) error {
	if problem := daemon.DeviceProblem("the devices given for "+path+" do not belong together", err); problem != nil {
		return problem
	}
	var foreign *store.NotStoreError
	if errors.As(err, &foreign) {
		return &admin.Error{Kind: admin.Refused, What: path + " is not an OSD's disk", Err: err, Way: "is it the right device?"}
	}
	return err
}

// checked is the result of `disk check`.
type checked struct {
	Device   string   `json:"device"`
	Problems int      `json:"problems"`
	Lines    []string `json:"lines"`
}

func (a *app) diskCheck() *cobra.Command {
	c := &cobra.Command{
		Use: "check DEVICE", Short: "Verify everything on an OSD's disk", Args: args(1, 1, "a device or a file"),
		Long: `check verifies a disk that no OSD uses now: superblocks, metadata, journal, and the checksums of all data. It changes nothing. It exits with 1 when there are problems, having
printed each of them.`,
		Example: "  holdfast disk check /dev/sdb\n  holdfast disk check --json ./data/osd.1.data",
		RunE: func(c *cobra.Command, names []string) error {
			ctx, end := interrupts(c.Context())
			defer end()
			show := a.terminal()
			var problems bytes.Buffer
			to := io.Writer(&problems)
			if !a.json && !show {
				to = a.out // each at once
			}
			n, err := onDisk(a, ctx, names[0], func(t *daemon.Thread, d loop.Disk, done func(int, error)) {
				var progress func(checked, total uint64)
				if show {
					progress = func(checked, total uint64) { fmt.Fprintf(a.err, "\r\x1b[K%d of %d objects", checked, total) }
				}
				store.Check(t, d, to, progress, done)
			})
			if show {
				fmt.Fprint(a.err, "\r\x1b[K")
			}
			if err != nil {
				a.out.Write(problems.Bytes())
				return diskProblem(names[0], err)
			}
			v := checked{Device: names[0], Problems: n, Lines: []string{}}
			if text := strings.TrimSpace(problems.String()); text != "" {
				v.Lines = strings.Split(text, "\n")
			}
			err = a.print(v, func(w io.Writer) {
				w.Write(problems.Bytes())
				if n == 0 {
					fmt.Fprintf(w, "%s is in order\n", names[0])
				} else {
					fmt.Fprintf(w, "%s has %d problems; an OSD repairs bad copies of data from good ones; what its OSD refuses to start with: holdfast disk accept %s\n", names[0], n, names[0])
				}
			})
			if err == nil && n > 0 {
				err = &exitError{int(admin.Failed)}
			}
			return err
		},
	}
	return a.withParams(a.withJSON(c), config.OSD, "meta_device", "journal_device")
}
