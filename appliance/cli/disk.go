package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"holdfast/appliance/bootstrap"
	"holdfast/appliance/daemon"
	"holdfast/core/admin"
	"holdfast/core/config"
	"holdfast/osd/store"
)

func (a *app) disk() *cobra.Command {
	c := &cobra.Command{
		Use: "disk", Short: "Format and look at the disks of OSDs", Args: args(1, 1, "format, dump or check"),
		RunE: func(c *cobra.Command, args []string) error {
			return &admin.Error{Kind: admin.Usage, What: "there is no command disk " + args[0], Way: "`holdfast disk --help` lists them"}
		},
	}
	c.AddCommand(a.diskFormat())
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
}

func describe(device string, sb *store.Superblock) superblock {
	return superblock{device, sb.StoreID.String(), sb.Version, sb.Blocks * uint64(sb.Config.BlockSize), sb.Blocks, sb.Config.BlockSize, sb.Config.Granularity, sb.Config.ChecksumType.String(), sb.Journal.Len, sb.Boot}
}

func (a *app) diskFormat() *cobra.Command {
	var text string
	var force bool
	c := &cobra.Command{
		Use: "format DEVICE", Short: "Make an empty OSD of a block device or a file", Args: args(1, 1, "a device or a file"),
		Long: `format writes a new store, with an identity of its own. A device that holds one already is refused unless --force is given: then everything on it is lost.

An OSD whose disk was formatted again is refilled from the other copies.`,
		Example: "  holdfast disk format /dev/sdb\n  holdfast disk format --size 10G ./osd.4.data\n  holdfast disk format --force /dev/sdb",
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
			sb, err := bootstrap.Format(ctx, t, path, cfg)
			if err != nil {
				return err
			}
			out := describe(path, &sb)
			return a.print(out, func(w io.Writer) {
				fmt.Fprintf(w, "formatted %s: %s of data in blocks of %s, journal %s, store %s\n", path, size(out.Size), size(uint64(out.BlockSize)), admin.Size(out.Journal), out.StoreID)
			})
		},
	}
	c.Flags().StringVar(&text, "size", "", "make a file of this size first")
	c.Flags().BoolVarP(&force, "force", "f", false, "format although a store is there: what it holds is lost")
	return a.withParams(a.withJSON(c), config.OSD, "block_size", "bitmap_granularity", "journal_size", "data_csum_type")
}
