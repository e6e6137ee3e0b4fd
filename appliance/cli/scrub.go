package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"holdfast/core/admin"
	"holdfast/core/blocking"
	"holdfast/core/client"
	"holdfast/core/config"
	"holdfast/core/layout"
)

// plainProgress is how often progress is written where there is no terminal.
const plainProgress = 10 * time.Second

// showScrubs shows how far scrubs are: on one line of a terminal, or a line now and then.
func (a *app) showScrubs() (show func(list []admin.Scrub), end func()) {
	if a.json {
		return nil, func() {}
	}
	terminal, shown := a.terminal(), false
	var last time.Time
	return func(list []admin.Scrub) {
			sum, ended := admin.TotalScrub(list), 0
			waits := ""
			for _, v := range list {
				if v.Ended {
					ended++
				}
				if waits == "" && v.Waits != "" {
					waits = ", waiting for " + v.What + ": " + v.Waits
				}
			}
			line := sum.Progress() + waits
			if len(list) > 1 {
				line = fmt.Sprintf("%d of %d PGs, %s", ended, len(list), line)
			}
			switch {
			case terminal:
				shown = true
				fmt.Fprintf(a.err, "\r\x1b[K%s", line)
			case time.Since(last) >= plainProgress:
				last = time.Now()
				fmt.Fprintln(a.err, line)
			}
		}, func() {
			if shown {
				fmt.Fprint(a.err, "\r\x1b[K")
			}
		}
}

func (a *app) scrub() *cobra.Command {
	var f admin.ScrubChoice
	var cancel, background bool
	c := &cobra.Command{
		Use: "scrub [IMAGE...]", Short: "Read all copies and compare them", Args: args(0, -1, "images"),
		Long: `scrub reads every copy of every object of images, PGs, a pool or all that an OSD has a part in, and compares them. What a checksum, the greater part of the copies or the parity tells to be wrong is made anew from the rest;
what nobody can tell is inconsistent, is not served, and is left to "holdfast fix". It is done beside clients at work, at the pace of recovery.

PGs are scrubbed by their primaries: when this command is interrupted that goes on, and running it again shows how far it is. --cancel breaks it off; the next scrub goes on from there, for a week. The scrub of an image is made by
this command: interrupted, it goes on from there when it is run again. Layers that the image rests on are scrubbed with it.

Exit codes: 0 everything was compared and is right now, 1 something is inconsistent, lost or could not be compared, others as everywhere.`,
		Example: "  holdfast scrub disk1\n  holdfast scrub --pg 1/7\n  holdfast scrub --pool fast\n  holdfast scrub --osd 3\n  holdfast scrub --all --background\n  holdfast scrub --all --cancel",
		RunE: func(c *cobra.Command, names []string) error {
			pgs := len(f.PGs) > 0 || f.Pool != "" || f.OSD != 0 || f.All
			if pgs == (len(names) > 0) {
				return &admin.Error{Kind: admin.Usage, What: "scrub wants images, or PGs", Way: "name images, or give --pg, --pool, --osd or --all"}
			}
			if (cancel || background) && !pgs {
				return &admin.Error{Kind: admin.Usage, What: "--cancel and --background are for PGs", Way: "give --pg, --pool, --osd or --all"}
			}
			s, err := a.snapshot(c)
			if err != nil {
				return err
			}
			if !pgs {
				return a.scrubImages(c.Context(), func() ([][]layout.Inode, error) {
					var list [][]layout.Inode
					for _, name := range names {
						layers, err := admin.Layers(s, name)
						if err != nil {
							return nil, err
						}
						list = append(list, layers)
					}
					return list, nil
				}, names)
			}
			list, err := admin.ScrubPGs(s, f)
			if err != nil {
				return err
			}
			return a.scrubPGs(c.Context(), list, cancel, background)
		},
	}
	c.Flags().StringSliceVar(&f.PGs, "pg", nil, "these PGs, as POOL/NUMBER")
	c.Flags().StringVarP(&f.Pool, "pool", "p", "", "all PGs of this pool")
	c.Flags().Uint64Var(&f.OSD, "osd", 0, "all PGs that have a place on this OSD")
	c.Flags().BoolVarP(&f.All, "all", "a", false, "all PGs")
	c.Flags().BoolVar(&cancel, "cancel", false, "break it off, and take back what is scheduled")
	c.Flags().BoolVar(&background, "background", false, "do not wait for the end")
	return a.withParams(a.withJSON(c), config.Client)
}

// waitFor runs something on the client's loop until it calls done, or ctx ends; stop ends it then.
func waitFor(ctx context.Context, conn *blocking.Conn, start func(cl *client.Client, done func(error)) (stop func())) error {
	var stop func()
	err := conn.Do(ctx, func(cl *client.Client, _ *client.Session, done func(error)) { stop = start(cl, done) })
	if ctx.Err() != nil {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		_ = conn.Do(end, func(_ *client.Client, _ *client.Session, done func(error)) {
			stop()
			done(nil)
		})
		return context.Canceled
	}
	return err
}

func (a *app) scrubPGs(parent context.Context, pgs []layout.PGID, cancel, background bool) error {
	return a.withClient(parent, func(ctx context.Context, conn *blocking.Conn, _ *config.Values) error {
		if cancel {
			var n int
			err := conn.Do(ctx, func(cl *client.Client, _ *client.Session, done func(error)) {
				admin.CancelScrub(cl, pgs, func(taken int, err error) {
					n = taken
					done(err)
				})
			})
			if err != nil {
				return err
			}
			return a.print(map[string]int{"canceled": n}, func(w io.Writer) { fmt.Fprintf(w, "no scrub of %d PGs is wanted any more\n", n) })
		}
		show, end := a.showScrubs()
		var list []admin.Scrub
		err := waitFor(ctx, conn, func(cl *client.Client, done func(error)) func() {
			asked := false
			run := admin.StartScrub(cl, pgs, func(now []admin.Scrub) {
				list = slices.Clone(now)
				if show != nil {
					show(now)
				}
				if background && asked {
					done(errBackground)
				}
				asked = true
			}, func(all []admin.Scrub, err error) {
				list = all
				done(err)
			})
			return run.Stop
		})
		end()
		if errors.Is(err, errBackground) {
			return a.print(list, func(w io.Writer) { fmt.Fprintf(w, "%d PGs are scrubbed in the background\n", len(pgs)) })
		}
		if err != nil {
			return err
		}
		return a.scrubbed(list)
	})
}

// errBackground says that nobody waits for the end.
var errBackground = errors.New("goes on in the background")

func (a *app) scrubImages(parent context.Context, find func() ([][]layout.Inode, error), names []string) error {
	images, err := find()
	if err != nil {
		return err
	}
	return a.withClient(parent, func(ctx context.Context, conn *blocking.Conn, _ *config.Values) error {
		show, end := a.showScrubs()
		var list []admin.Scrub
		seen := map[layout.Inode]bool{}
		for i, layers := range images {
			for n, layer := range layers {
				if seen[layer] {
					continue
				}
				seen[layer] = true
				what := "image " + names[i]
				if n > 0 {
					what = fmt.Sprintf("layer %v of image %s", layer, names[i])
				}
				var v admin.Scrub
				err := waitFor(ctx, conn, func(cl *client.Client, done func(error)) func() {
					job := admin.ScrubImage(cl, layer, what, func(now admin.Scrub) {
						if show != nil {
							show([]admin.Scrub{now})
						}
					}, func(all admin.Scrub, err error) {
						v = all
						done(err)
					})
					return job.Stop
				})
				if err != nil {
					end()
					return err
				}
				list = append(list, v)
			}
		}
		end()
		return a.scrubbed(list)
	})
}

// scrubbed prints what was found, and makes the exit code of it.
func (a *app) scrubbed(list []admin.Scrub) error {
	sum := admin.TotalScrub(list)
	err := a.print(list, func(w io.Writer) {
		for _, v := range list {
			if len(list) > 1 && v.Bad+v.Inconsistent+v.Lost+v.Skipped > 0 || len(list) == 1 {
				fmt.Fprintf(w, "%s: %s\n", v.What, v.Line())
			}
		}
		if len(list) > 1 {
			fmt.Fprintf(w, "%d scrubbed: %s\n", len(list), sum.Line())
		}
		if sum.Inconsistent+sum.Lost > 0 {
			fmt.Fprintln(w, "`holdfast describe --object-state inconsistent,incomplete` lists them, `holdfast fix` settles what is inconsistent")
		}
	})
	if err == nil && !sum.Sound() {
		return &exitError{int(admin.Failed)}
	}
	return err
}

func (a *app) fix() *cobra.Command {
	var objects, check string
	var f admin.FixChoice
	var osds []uint
	c := &cobra.Command{
		Use: "fix --bad-osds OSD,...", Short: "Say which copies of inconsistent objects are wrong", Args: args(0, 0, "no arguments"),
		Long: `fix has what the OSDs named have of objects made anew from the other copies, or chunks. It is for objects that are inconsistent: their copies differ, and nobody but you can know which are right. Only copies that their PG's
primary finds wrong or in doubt are touched, and only if enough others are left; a right copy cannot be harmed.

--objects lists the objects: 0x<inode>:0x<stripe> with anything between them, the JSON [{"inode":"0x...","stripe":"0x..."}], or what "holdfast describe --json" prints; without it, or with -, that is read from the standard input.

Exit codes: 0 all copies named that were wrong are made anew, 1 some could not be, 3 none of them was wrong, others as everywhere.`,
		Example: "  holdfast describe --object-state inconsistent --limit 0 --json | holdfast fix --bad-osds 2 --dry-run\n  holdfast fix --objects 0x1000000000001:0x20000 --bad-osds 2\n  holdfast fix --objects - --bad-osds 4,5 --part 1 --check no",
		RunE: func(c *cobra.Command, _ []string) error {
			if len(osds) == 0 {
				return &admin.Error{Kind: admin.Usage, What: "--bad-osds is missing", Way: "name the OSDs whose copies are wrong; `holdfast describe` lists the copies"}
			}
			switch strings.ToLower(check) {
			case "yes", "true", "1", "on":
				f.Check = true
			case "no", "false", "0", "off":
				if f.DryRun {
					return &admin.Error{Kind: admin.Usage, What: "--dry-run has to ask which copies are in doubt", Way: "leave --check no out"}
				}
			default:
				return &admin.Error{Kind: admin.Usage, What: "--check " + check, Way: "give yes or no"}
			}
			for _, osd := range osds {
				f.OSDs = append(f.OSDs, uint64(osd))
			}
			text := []byte(objects)
			if objects == "" || objects == "-" {
				if _, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS); err == nil {
					return &admin.Error{Kind: admin.Usage, What: "no objects are given", Way: "give --objects, or a list on the standard input"}
				}
				var err error
				if text, err = io.ReadAll(io.LimitReader(os.Stdin, maxObjectList)); err != nil {
					return err
				}
				if len(text) == maxObjectList {
					return &admin.Error{Kind: admin.Usage, What: "the list of objects is longer than 256 MiB", Way: "give it in parts"}
				}
			}
			var err error
			if f.Objects, err = admin.ReadObjects(text); err != nil {
				return err
			}
			if len(f.Objects) == 0 {
				return &admin.Error{Kind: admin.NotFound, What: "the list names no object", Way: "write 0x<inode>:0x<stripe>"}
			}
			return a.fixObjects(c.Context(), f)
		},
	}
	c.Flags().StringVar(&objects, "objects", "", "the objects, as text or JSON; - or nothing: from the standard input")
	c.Flags().UintSliceVar(&osds, "bad-osds", nil, "the OSDs whose copies are wrong")
	c.Flags().IntVar(&f.Part, "part", -1, "only this part of erasure-coded objects, from 0")
	c.Flags().StringVar(&check, "check", "yes", "no: do not ask first which copies are in doubt; they are compared all the same")
	c.Flags().BoolVar(&f.DryRun, "dry-run", false, "only say what would be made anew")
	return a.withParams(a.withJSON(c), config.Client)
}

// maxObjectList bounds a list of objects.
const maxObjectList = 256 << 20

func (a *app) fixObjects(parent context.Context, f admin.FixChoice) error {
	return a.withClient(parent, func(ctx context.Context, conn *blocking.Conn, _ *config.Values) error {
		var list []admin.Fixed
		err := waitFor(ctx, conn, func(cl *client.Client, done func(error)) func() {
			run := admin.Fix(cl, f, func(all []admin.Fixed, err error) {
				list = all
				done(err)
			})
			return run.Stop
		})
		if err != nil {
			return err
		}
		if err := a.print(list, func(w io.Writer) { writeFixed(w, list) }); err != nil {
			return err
		}
		wrong := false
		for _, v := range list {
			switch v.Result {
			case admin.FixInDoubt, admin.FixLost, admin.FixRefused:
				return &exitError{int(admin.Failed)}
			case admin.FixNotWrong:
			default:
				wrong = true
			}
		}
		if !wrong {
			return &exitError{int(admin.NotFound)}
		}
		return nil
	})
}

func writeFixed(w io.Writer, list []admin.Fixed) {
	for _, v := range list {
		text := fmt.Sprintf("object %#x:%#x on OSD %d: ", uint64(layout.MakeInode(layout.PoolID(v.PoolID), v.InodeID)), v.Offset, v.OSD)
		switch v.Result {
		case admin.FixNotWrong:
			text += "nothing is wrong or in doubt there"
		case admin.FixInDoubt:
			text += "the other copies differ, too: name those that are wrong"
		case admin.FixLost:
			text += "none of the copies that are left can be read"
		default:
			text += v.Result
		}
		if v.Error != "" {
			text += ": " + v.Error
		}
		fmt.Fprintln(w, text)
	}
}
