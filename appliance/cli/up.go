package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"holdfast/appliance/allinone"
	"holdfast/appliance/daemon"
	"holdfast/core/admin"
	"holdfast/core/config"
)

func (a *app) up() *cobra.Command {
	var (
		o                         allinone.Options
		size, nbd, nfs, iscsi, et string
	)
	c := &cobra.Command{
		Use:   "up",
		Short: "Start a whole cluster in one process and one folder",
		Long: `up starts etcd, a monitor, OSDs and a gateway in one process. The first start makes the folder, the OSDs' disks (files), a pool and an image; later starts find them again.

It prints lines to paste for each protocol, then "up" on a line of its own when it serves. SIGINT (Ctrl-C) and SIGTERM stop it in order; a second one at once. What was acknowledged
is kept in any case.`,
		Example: `  holdfast up --dir ./data
  holdfast up --dir ./data --osds 5                    # grow by two OSDs
  holdfast up --dir ./two --etcd 127.0.0.1:24790 --nbd 127.0.0.1:20809 --nfs 127.0.0.1:22049 --iscsi 127.0.0.1:23260`,
		Args: args(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if c.Flags().Changed("osds") && o.OSDs < 1 || c.Flags().Changed("replicas") && o.Replicas < 1 {
				return &admin.Error{Kind: admin.Usage, What: "--osds and --replicas want a number from 1"}
			}
			if size != "" {
				if o.OSDSize, err = config.ParseBytes(size); err != nil || o.OSDSize < 1 {
					return &admin.Error{Kind: admin.Usage, What: "--osd-size " + size, Err: err, Way: "give a size such as 2G"}
				}
			}
			for name, value := range map[string]string{"nbd_address": nbd, "nfs_address": nfs, "iscsi_address": iscsi} {
				if flag := strings.TrimSuffix(name, "_address"); c.Flags().Changed(flag) {
					a.params[name] = value
				}
			}
			if et != "" {
				o.Etcd = strings.Split(et, ",")
			}
			if c.Flags().Changed("image") && o.Image == "" {
				o.Image = "-"
			}
			for _, not := range []string{"config_path", "etcd_address", "osd_num", "data_device", "meta_device", "journal_device", "data_size", "bind_port", "bind_address", "readonly"} {
				if _, given := a.params[not]; given {
					return &admin.Error{Kind: admin.Usage, What: "--" + not + " has no meaning for `holdfast up`", Way: "--dir names the cluster, --etcd the address"}
				}
			}
			o.Flags, o.Version, o.Program, o.Errors = a.params, Version, a.name(), a.err
			return a.runUp(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Dir, "dir", "./data", "folder of the cluster")
	f.IntVar(&o.OSDs, "osds", 0, fmt.Sprintf("number of OSDs; more than there are adds some (new cluster: %d)", allinone.DefaultOSDs))
	f.StringVar(&size, "osd-size", "", fmt.Sprintf("size of each OSD's disk (new cluster: %s)", strings.ReplaceAll(admin.Size(allinone.DefaultOSDSize), " ", "")))
	f.IntVar(&o.Replicas, "replicas", 0, fmt.Sprintf("copies of the first pool (new cluster: %d, at most the OSDs)", allinone.DefaultReplicas))
	f.StringVar(&o.Image, "image", "", `image to make, NAME:SIZE; "" for none (new cluster: `+allinone.DefaultImage+")")
	f.StringVar(&et, "etcd", "", "address of the embedded etcd, loopback (new cluster: "+allinone.DefaultEtcd+")")
	f.StringVar(&nbd, "nbd", "", "addresses of NBD: HOST:PORT or unix:PATH, with commas; \"\" for none (127.0.0.1:10809)")
	f.StringVar(&nfs, "nfs", "", "addresses of NFS (127.0.0.1:2049)")
	f.StringVar(&iscsi, "iscsi", "", "addresses of iSCSI (127.0.0.1:3260)")
	return a.withParams(c, config.All)
}

// interrupts returns a context that ends at the first SIGINT or SIGTERM; the second one ends the process at once.
func interrupts(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(parent)
	got := make(chan os.Signal, 2)
	signal.Notify(got, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		if _, ok := <-got; !ok {
			return
		}
		cancel()
		if s, ok := <-got; ok {
			os.Exit(128 + int(s.(syscall.Signal)))
		}
	}()
	return ctx, func() {
		signal.Stop(got)
		close(got)
		cancel()
	}
}

func (a *app) runUp(parent context.Context, o allinone.Options) error {
	ctx, end := interrupts(parent)
	defer end()
	var mu sync.Mutex // several parts say something
	o.Say = func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(a.out, format+"\n", args...)
	}
	c, err := allinone.Up(ctx, o)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		o.Say("stopped before it was up")
		return nil
	}
	if err != nil {
		return err
	}
	daemon.OnHangup(ctx, c.Live())
	for _, line := range c.Lines() {
		o.Say("%s", line)
	}
	o.Say("up")
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-c.Ended():
		o.Say("error: %v", failed)
	}
	c.Stop()
	return failed
}
