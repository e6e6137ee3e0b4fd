package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"holdfast/appliance/bootstrap"
	"holdfast/appliance/daemon"
	"holdfast/core/admin"
	"holdfast/core/blocking"
	"holdfast/core/client"
	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/images"
	"holdfast/core/layout"
	"holdfast/core/registry"
)

// withClient runs f with a connection to the cluster. The first SIGINT ends f's context.
func (a *app) withClient(parent context.Context, f func(ctx context.Context, conn *blocking.Conn, v *config.Values) error) error {
	ctx, end := interrupts(parent)
	defer end()
	v, err := a.config()
	if err != nil {
		return err
	}
	live := config.NewLive(v, config.Client, slog.New(slog.DiscardHandler)) // what is wrong in etcd is the daemons' to say
	conn, err := daemon.OpenLive(ctx, live, a.quiet(v))
	if err != nil {
		return err
	}
	defer conn.Close()
	v = live.Values()
	err = explain(daemon.Explain(v, f(ctx, conn, v)))
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return &admin.Error{Kind: admin.Failed, What: "interrupted", Way: "run the command again to go on"}
	}
	return err
}

func (a *app) create() *cobra.Command {
	var text, poolName string
	c := &cobra.Command{
		Use: "create NAME --size SIZE", Short: "Create an image", Args: args(1, 1, "the name of an image"),
		Long: "create makes an image. It takes space only as it is written; if all images of the pool together may grow to more than there is space for, a warning says so. " +
			"When the command ends, every gateway serves it: on NBD by its name, on NFS as a file, on iSCSI as a target.",
		Example: "  holdfast create disk1 --size 10G\n  holdfast create vm/mail -s 512M --pool fast",
		RunE: func(c *cobra.Command, names []string) error {
			n, err := parseSize("--size", text)
			if err == nil {
				err = nameError(names[0])
			}
			if err != nil {
				return err
			}
			return a.withClient(c.Context(), func(ctx context.Context, conn *blocking.Conn, _ *config.Values) error {
				pool, err := admin.FindPool(conn.Snapshot(), poolName)
				if err != nil {
					return err
				}
				var id layout.Inode
				err = conn.Do(ctx, func(cl *client.Client, _ *client.Session, done func(error)) {
					images.Create(cl, images.New{Name: names[0], Size: n, Pool: pool.Name, Identity: bootstrap.Identity()}, func(i layout.Inode, err error) {
						id = i
						done(err)
					})
				})
				if err != nil {
					return err
				}
				served(ctx, conn, id)
				v := admin.Image{Name: names[0], Pool: pool.Name, PoolID: uint64(id.Pool()), ID: id.Num(), Size: n}
				if i, ok := conn.Snapshot().Image(names[0]); ok {
					v.Identity = i.Identity()
				}
				a.warnOfSpace(c, id.Pool())
				return a.print(v, func(w io.Writer) { fmt.Fprintf(w, "created image %q of %s in pool %q\n", v.Name, size(n), pool.Name) })
			})
		},
	}
	c.Flags().StringVarP(&text, "size", "s", "", "size of the image, such as 10G (K, M, G, T: powers of 1024)")
	c.Flags().StringVarP(&poolName, "pool", "p", "", "pool to make it in (the only one)")
	return a.withParams(a.withJSON(c), config.Client)
}

// servedWithin bounds how long a command waits for gateways to serve an image as it has made it. One that takes longer has no contact with etcd.
const servedWithin = 3 * time.Second

// served waits until every gateway serves an image as it is now, so that a client can be started with the next command. It is no error if one does not: the image is as it should be.
func served(ctx context.Context, conn *blocking.Conn, id layout.Inode) {
	ctx, cancel := context.WithTimeout(ctx, servedWithin)
	defer cancel()
	get := registry.Txn{Then: []registry.Op{{Kind: registry.Get, Key: cluster.InodeKey(id)}, {Kind: registry.GetPrefix, Key: cluster.PrefixGateway}}}
	var since registry.Revision
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		res, err := conn.Txn(ctx, get)
		if err != nil || len(res.Results) != 2 || len(res.Results[0]) == 0 {
			return
		}
		since = max(since, res.Results[0][0].Mod)
		behind := slices.ContainsFunc(res.Results[1], func(kv registry.KV) bool {
			var g cluster.Gateway
			return json.Unmarshal(kv.Value, &g) == nil && len(g.NBD)+len(g.NFS)+len(g.ISCSI) > 0 && g.Revision < int64(since)
		})
		if !behind {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func nameError(name string) error {
	if err := cluster.CheckImageName(name); err != nil {
		return &admin.Error{Kind: admin.Usage, What: fmt.Sprintf("image name %q", name), Err: err}
	}
	return nil
}

// parseSize reads the size of an image.
func parseSize(flag, text string) (uint64, error) {
	if text == "" {
		return 0, &admin.Error{Kind: admin.Usage, What: flag + " is missing", Way: "give a size such as 10G"}
	}
	n, err := config.ParseBytes(text)
	if err == nil && n <= 0 {
		err = errors.New("an image has at least one byte")
	}
	if err == nil {
		err = cluster.CheckImageSize(uint64(n))
	}
	if err != nil {
		return 0, &admin.Error{Kind: admin.Usage, What: flag + " " + text, Err: err, Way: "give a size such as 10G"}
	}
	return uint64(n), nil
}

// terminal reports whether progress can be shown: somebody looks at a terminal.
func (a *app) terminal() bool {
	f, ok := a.err.(*os.File)
	if !ok || a.json {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// progress shows how far an operation is, on one line of a terminal.
func (a *app) progress(what string) (show func(images.Progress), end func()) {
	if !a.terminal() {
		return nil, func() {}
	}
	shown := false
	return func(p images.Progress) {
			shown = true
			line := fmt.Sprintf("%s: %s", what, p.Step)
			if p.Total > 0 {
				line += fmt.Sprintf(", %d of %d objects, %s/s", p.Objects, p.Total, admin.Size(int64(p.Rate)))
			}
			if p.Waiting != "" {
				line += ", waiting for " + p.Waiting
			}
			fmt.Fprintf(a.err, "\r\x1b[K%s", line)
		}, func() {
			if shown {
				fmt.Fprint(a.err, "\r\x1b[K")
			}
		}
}

// operate runs one operation of core/images and stops it in order when ctx ends.
func operate(ctx context.Context, conn *blocking.Conn, start func(cl *client.Client, done func(error)) *images.Operation) error {
	var op *images.Operation
	// Stopping takes a moment: what is under way ends first.
	whole, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		stopCtx, end := context.WithTimeout(whole, 3*time.Second)
		defer end()
		_ = conn.Do(stopCtx, func(_ *client.Client, _ *client.Session, done func(error)) {
			if op != nil {
				op.Stop()
			}
			done(nil)
		})
		time.AfterFunc(3*time.Second, cancel)
	})
	defer stop()
	err := conn.Do(whole, func(cl *client.Client, _ *client.Session, done func(error)) { op = start(cl, done) })
	if errors.Is(err, images.ErrStopped) {
		return context.Canceled
	}
	return err
}

func (a *app) rm() *cobra.Command {
	c := &cobra.Command{
		Use: "rm NAME", Aliases: []string{"remove"}, Short: "Remove an image", Args: args(1, 1, "the name of an image"),
		Long:    "rm deletes an image and everything in it, without asking. Interrupted, it can be run again and goes on where it was.",
		Example: "  holdfast rm disk1",
		RunE: func(c *cobra.Command, names []string) error {
			return a.withClient(c.Context(), func(ctx context.Context, conn *blocking.Conn, v *config.Values) error {
				show, end := a.progress("removing " + names[0])
				err := operate(ctx, conn, func(cl *client.Client, done func(error)) *images.Operation {
					return images.Remove(cl, names[0], images.Options{Patience: v.Duration("client_wait_up_timeout"), Progress: show}, done)
				})
				end()
				if err != nil {
					return err
				}
				return a.print(map[string]string{"removed": names[0]}, func(w io.Writer) { fmt.Fprintf(w, "removed image %q\n", names[0]) })
			})
		},
	}
	return a.withParams(a.withJSON(c), config.Client)
}

func (a *app) modify() *cobra.Command {
	var resize, rename string
	var shrink bool
	c := &cobra.Command{
		Use: "modify NAME [--resize SIZE] [--rename NEW]", Short: "Change an image's size or name", Args: args(1, 1, "the name of an image"),
		Long:    "modify changes an image while it is used. Making it smaller loses what lies beyond the new end, and wants --force.",
		Example: "  holdfast modify disk1 --resize 20G\n  holdfast modify disk1 --rename mail\n  holdfast modify disk1 --resize 5G --force",
		RunE: func(c *cobra.Command, names []string) error {
			name := names[0]
			var n uint64
			var err error
			if c.Flags().Changed("resize") {
				if n, err = parseSize("--resize", resize); err != nil {
					return err
				}
			}
			if c.Flags().Changed("rename") {
				if err := nameError(rename); err != nil {
					return err
				}
			}
			if n == 0 && rename == "" {
				return &admin.Error{Kind: admin.Usage, What: "there is nothing to change", Way: "give --resize SIZE or --rename NEW"}
			}
			return a.withClient(c.Context(), func(ctx context.Context, conn *blocking.Conn, v *config.Values) error {
				i, ok := conn.Snapshot().Image(name)
				if !ok {
					return admin.NoImage(name)
				}
				if n != 0 && n < uint64(i.Size) && !shrink {
					return &admin.Error{Kind: admin.Refused, What: fmt.Sprintf("image %q has %s: at %s, what lies beyond is lost", name, size(uint64(i.Size)), size(n)), Way: "give --force to make it smaller"}
				}
				if n != 0 {
					show, end := a.progress("resizing " + name)
					err := operate(ctx, conn, func(cl *client.Client, done func(error)) *images.Operation {
						o := images.ResizeOptions{Options: images.Options{Patience: v.Duration("client_wait_up_timeout"), Progress: show}, Shrink: shrink}
						return images.Resize(cl, name, n, o, done)
					})
					end()
					if err != nil {
						return err
					}
				}
				if rename != "" {
					err := operate(ctx, conn, func(cl *client.Client, done func(error)) *images.Operation {
						return images.Rename(cl, name, rename, done)
					})
					if err != nil {
						return err
					}
					name = rename
				}
				served(ctx, conn, i.ID)
				if n > uint64(i.Size) {
					a.warnOfSpace(c, i.ID.Pool())
				}
				out := map[string]any{"name": name, "size": uint64(i.Size)}
				if n != 0 {
					out["size"] = n
				}
				return a.print(out, func(w io.Writer) { fmt.Fprintf(w, "image %q has %s\n", name, size(out["size"].(uint64))) })
			})
		},
	}
	c.Flags().StringVar(&resize, "resize", "", "new size, such as 20G")
	c.Flags().StringVar(&rename, "rename", "", "new name")
	c.Flags().BoolVarP(&shrink, "force", "f", false, "allow a smaller size; what lies beyond is lost")
	return a.withParams(a.withJSON(c), config.Client)
}
