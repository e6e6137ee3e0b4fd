package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"holdfast/appliance/daemon"
	"holdfast/core/admin"
	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/core/layout"
)

// snapshot reads the whole state of the cluster.
func (a *app) snapshot(c *cobra.Command) (*cluster.Snapshot, error) {
	v, err := a.config()
	if err != nil {
		return nil, err
	}
	k, err := daemon.Connect(v, a.quiet(v))
	if err != nil {
		return nil, err
	}
	defer k.Close()
	return k.Snapshot(c.Context(), admin.Sections)
}

// table writes lines of cells, the first one the heading.
func table(w io.Writer, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(t, strings.TrimRight(strings.Join(r, "\t"), "\t"))
	}
	t.Flush()
}

func num[T ~uint64 | ~int](n T) string { return fmt.Sprint(n) }

func size(n uint64) string { return admin.Size(int64(n)) }

func yes(b bool, word string) string {
	if b {
		return word
	}
	return ""
}

func (a *app) status() *cobra.Command {
	c := &cobra.Command{
		Use: "status", Short: "The cluster at a glance", Args: args(0, 0, "no arguments"),
		Long:    "status prints what there is and what an operator should look at. health is ok, degraded (everything is served, copies or parts are missing) or down (something is not served).",
		Example: "  holdfast status --config ./data/holdfast.conf\n  holdfast status --json | jq .health",
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.snapshot(c)
			if err != nil {
				return err
			}
			v := admin.Report(s)
			return a.print(v, func(w io.Writer) { writeStatus(w, v) })
		},
	}
	return a.withParams(a.withJSON(c), config.Client)
}

func writeStatus(w io.Writer, v admin.Status) {
	fmt.Fprintf(w, "cluster %s: %s\n\n", v.ClusterID, v.Health)
	rows := [][]string{
		{"  monitors", fmt.Sprintf("%d, leader %s", v.Monitors, cmp.Or(v.Master, "none"))},
		{"  OSDs", fmt.Sprintf("%d up of %d", v.OSDsUp, v.OSDs)},
		{"  gateways", num(v.Gateways)},
		{"  pools", fmt.Sprintf("%d active of %d", v.PoolsUp, v.Pools)},
		{"  images", num(v.Images)},
		{"  raw space", fmt.Sprintf("%s used of %s", size(v.RawUsed), size(v.RawTotal))},
		{"  data", fmt.Sprintf("%s clean, %s degraded, %s misplaced, %s incomplete", size(v.Clean), size(v.Degraded), size(v.Misplaced), size(v.Incomplete))},
	}
	for i, p := range v.PGs {
		rows = append(rows, []string{[]string{"  PGs", ""}[min(i, 1)], fmt.Sprintf("%d %s", p.Count, p.State)})
	}
	for _, r := range v.Client {
		rows = append(rows, []string{"  client " + r.Op, fmt.Sprintf("%s/s, %d per s", size(r.Bps), r.Iops)})
	}
	if line := v.Progress.Line(); line != "" {
		rows = append(rows, []string{"  recovery", line})
	}
	if v.Scrub != nil {
		rows = append(rows, []string{"  scrub", v.Scrub.What + ", " + v.Scrub.Progress()})
	}
	if e := v.Snapshot; e != nil {
		rows = append(rows, []string{"  etcd snapshot", fmt.Sprintf("%s, %s on %s", e.Time, e.File, e.Host)})
	}
	if len(v.Flags) > 0 {
		rows = append(rows, []string{"  flags", strings.Join(v.Flags, ", ")})
	}
	table(w, rows)
	writeReasons(w, v.Reasons, v.MoreWait)
	writeWarnings(w, v.Warnings)
}

// writeWarnings writes a line for each, after a line that is empty.
func writeWarnings(w io.Writer, list []string) {
	for _, t := range list {
		fmt.Fprintf(w, "\nwarning: %s", t)
	}
	if len(list) > 0 {
		fmt.Fprintln(w)
	}
}

// poolWarnings are the warnings of all pools, each once: an OSD may be in several.
func poolWarnings(pools []admin.Pool) (list []string) {
	for _, p := range pools {
		for _, t := range p.Warnings {
			if !slices.Contains(list, t) {
				list = append(list, t)
			}
		}
	}
	return list
}

// warnOfSpace says on standard error what is to be said of a pool's space after an image was made or has grown. The image is as it should be, whatever there is to say, and so is the command's end.
func (a *app) warnOfSpace(c *cobra.Command, id layout.PoolID) {
	s, err := a.snapshot(c)
	if err != nil {
		return
	}
	for _, p := range admin.Pools(s) {
		if p.ID == uint64(id) {
			for _, t := range p.Warnings {
				fmt.Fprintf(a.err, "warning: %s\n", t)
			}
		}
	}
}

// writeReasons writes a line for each PG that waits or is not whole.
func writeReasons(w io.Writer, list []admin.Waits, more int) {
	if len(list) > 0 {
		fmt.Fprintln(w)
	}
	for _, r := range list {
		fmt.Fprintln(w, r.Line())
	}
	if more > 0 {
		fmt.Fprintf(w, "and %d more: `holdfast pg-list` says why\n", more)
	}
}

func (a *app) df() *cobra.Command {
	c := &cobra.Command{
		Use: "df", Short: "Space of the pools", Args: args(0, 0, "no arguments"),
		Long: "df prints what images can use in each pool: sizes are those of data, with the copies taken out. PROVISIONED is what its images may grow to, all together; " +
			"if that is more than there is space for, or an OSD is nearly full, a warning says so.",
		Example: "  holdfast df\n  holdfast df --json",
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.snapshot(c)
			if err != nil {
				return err
			}
			pools := admin.Pools(s)
			return a.print(pools, func(w io.Writer) {
				rows := [][]string{{"NAME", "SCHEME", "PGS", "TOTAL", "USED", "AVAILABLE", "USED%", "PROVISIONED", "EFFICIENCY"}}
				for _, p := range pools {
					percent := 0.0
					if p.Total > 0 {
						percent = 100 * float64(p.Used) / float64(p.Total)
					}
					rows = append(rows, []string{p.Name, fmt.Sprintf("%s %d/%d", p.Scheme, p.PGSize, p.PGMinSize), num(p.PGCount), size(p.Total), size(p.Used), size(p.Available), fmt.Sprintf("%.1f", percent), size(p.Provisioned), fmt.Sprintf("%.0f%%", 100*p.Efficiency)})
				}
				table(w, rows)
				writeWarnings(w, poolWarnings(pools))
			})
		},
	}
	return a.withParams(a.withJSON(c), config.Client)
}

// sorting orders a list by a column; the columns are those of the JSON.
type sorting struct {
	by      string
	reverse bool
	limit   int
}

func (o *sorting) flags(c *cobra.Command, columns string) {
	c.Flags().StringVar(&o.by, "sort", "", "order by "+columns)
	c.Flags().BoolVarP(&o.reverse, "reverse", "r", false, "largest first")
	c.Flags().IntVarP(&o.limit, "count", "n", 0, "print at most that many")
}

// order sorts list by the column named in o.
func order[T any](o sorting, list []T, columns map[string]func(a, b T) int) ([]T, error) {
	if o.by != "" {
		f, ok := columns[o.by]
		if !ok {
			names := make([]string, 0, len(columns))
			for n := range columns {
				names = append(names, n)
			}
			slices.Sort(names)
			return nil, &admin.Error{Kind: admin.Usage, What: "--sort " + o.by, Way: "give " + strings.Join(names, ", ")}
		}
		slices.SortStableFunc(list, f)
	}
	if o.reverse {
		slices.Reverse(list)
	}
	if o.limit > 0 && len(list) > o.limit {
		list = list[:o.limit]
	}
	return list, nil
}

func (a *app) ls() *cobra.Command {
	var f admin.ImageFilter
	var o sorting
	var long bool
	c := &cobra.Command{
		Use: "ls [PATTERN...]", Short: "List images", Args: args(0, -1, "patterns"),
		Long:    "ls lists images by name. A pattern may hold * ? [a-z]; * stands for slashes, too.",
		Example: "  holdfast ls\n  holdfast ls -l\n  holdfast ls 'vm/*' --sort raw_used --reverse\n  holdfast ls --json",
		RunE: func(c *cobra.Command, names []string) error {
			f.Globs = names
			s, err := a.snapshot(c)
			if err != nil {
				return err
			}
			list, err := admin.Images(s, f)
			if err == nil {
				list, err = order(o, list, map[string]func(a, b admin.Image) int{
					"name":     func(a, b admin.Image) int { return strings.Compare(a.Name, b.Name) },
					"size":     func(a, b admin.Image) int { return cmp.Compare(a.Size, b.Size) },
					"raw_used": func(a, b admin.Image) int { return cmp.Compare(a.RawUsed, b.RawUsed) },
				})
			}
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) {
				rows := [][]string{{"NAME", "POOL", "SIZE", "RAW USED", "FLAGS"}}
				if long {
					rows[0] = append(rows[0], "LAST VERIFIED")
				}
				for _, i := range list {
					row := []string{i.Name, cmp.Or(i.Pool, num(i.PoolID)), size(i.Size), size(i.RawUsed), strings.TrimSpace(yes(i.ReadOnly, "RO") + " " + yes(i.Deleted, "DEL"))}
					if long {
						row = append(row, cmp.Or(i.Verified, "never"))
					}
					rows = append(rows, row)
				}
				table(w, rows)
			})
		},
	}
	c.Flags().BoolVar(&f.Exact, "exact", false, "the patterns are names")
	c.Flags().StringVarP(&f.Pool, "pool", "p", "", "only images of this pool")
	c.Flags().BoolVar(&f.Deleted, "del", false, "only images whose removal has begun")
	c.Flags().BoolVarP(&long, "long", "l", false, "also when all copies of an image were last compared and found right")
	o.flags(c, "name, size or raw_used")
	return a.withParams(a.withJSON(c), config.Client)
}

func (a *app) lsPools() *cobra.Command {
	c := &cobra.Command{
		Use: "ls-pools", Aliases: []string{"pool-ls", "pools"}, Short: "List pools", Args: args(0, 0, "no arguments"), Example: "  holdfast ls-pools\n  holdfast ls-pools --json",
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.snapshot(c)
			if err != nil {
				return err
			}
			pools := admin.Pools(s)
			return a.print(pools, func(w io.Writer) {
				rows := [][]string{{"ID", "NAME", "SCHEME", "PGS", "ACTIVE", "FAILURE DOMAIN", "BLOCK", "IMAGES"}}
				for _, p := range pools {
					rows = append(rows, []string{num(p.ID), p.Name, fmt.Sprintf("%s %d/%d", p.Scheme, p.PGSize, p.PGMinSize), num(p.PGCount), num(p.Active), p.FailureDomain, size(p.BlockSize), num(p.Images)})
				}
				table(w, rows)
				writeWarnings(w, poolWarnings(pools))
			})
		},
	}
	return a.withParams(a.withJSON(c), config.Client)
}

func (a *app) lsOSD() *cobra.Command {
	c := &cobra.Command{
		Use: "ls-osd", Aliases: []string{"osd-ls", "ls-osds", "osds"}, Short: "List OSDs", Args: args(0, 0, "no arguments"), Example: "  holdfast ls-osd\n  holdfast ls-osd --json",
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.snapshot(c)
			if err != nil {
				return err
			}
			list := admin.OSDs(s)
			return a.print(list, func(w io.Writer) {
				rows := [][]string{{"OSD", "STATE", "HOST", "ADDRESS", "SIZE", "FREE", "WEIGHT", "PGS", "PRIMARY", "TAGS"}}
				for _, o := range list {
					state, addr := "down", ""
					switch {
					case o.Up:
						state = "up"
					case o.Waits != "":
						state = "waits"
					case o.Stopped != nil:
						state = "failed"
					}
					if len(o.Addresses) > 0 {
						addr = o.Addresses[0] + ":" + num(o.Port)
					}
					rows = append(rows, []string{num(o.Num), state, o.Host, addr, size(o.Size), size(o.Free), strconv.FormatFloat(o.Reweight, 'g', 4, 64), num(o.PGs), num(o.Primary), strings.Join(o.Tags, ",")})
				}
				table(w, rows)
				for _, o := range list {
					if o.Waits != "" {
						fmt.Fprintf(w, "OSD %d waits: %s\n", o.Num, o.Waits)
					}
					if o.Stopped != nil && o.Waits == "" {
						fmt.Fprintf(w, "OSD %d on host %s stopped at %s: %s\n", o.Num, o.Stopped.Host, o.Stopped.Time, o.Stopped.Reason)
					}
					if o.Left > 0 {
						fmt.Fprintf(w, "OSD %d is down, and copies of %d PGs that have no place there any more may be left: they go when it is started\n", o.Num, o.Left)
					}
				}
			})
		},
	}
	return a.withParams(a.withJSON(c), config.Client)
}

func (a *app) pgList() *cobra.Command {
	var f admin.PGFilter
	c := &cobra.Command{
		Use: "pg-list [STATE...]", Aliases: []string{"pg-ls", "ls-pg", "ls-pgs", "list-pg", "pgs"}, Short: "List PGs", Args: args(0, -1, "states"),
		Long:    "pg-list lists PGs: all, or those that have every named state, and none that is named with ! or ^ before it. Below it says why those wait or are not whole, and what would help.",
		Example: "  holdfast pg-list\n  holdfast pg-list '!active'\n  holdfast pg-list degraded --osd 2 --json",
		RunE: func(c *cobra.Command, states []string) error {
			f.States = states
			s, err := a.snapshot(c)
			if err != nil {
				return err
			}
			list, err := admin.PGs(s, f)
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { writePGs(w, list, admin.Report(s).Progress) })
		},
	}
	c.Flags().StringVarP(&f.Pool, "pool", "p", "", "only PGs of this pool")
	c.Flags().Uint64Var(&f.OSD, "osd", 0, "only PGs whose set holds this OSD")
	return a.withParams(a.withJSON(c), config.Client)
}

// writePGs writes a table of PGs, how far recovery is in the whole cluster, and why PGs of the table wait.
func writePGs(w io.Writer, list []admin.PG, p admin.Progress) {
	rows := [][]string{{"PG", "STATE", "PRIMARY", "OSD SET", "INTERVAL", "OBJECTS", "DEGRADED", "MISPLACED", "TO RECOVER"}}
	for _, p := range list {
		left := num(p.RecoveryLeft)
		if p.RecoveryLeft > 0 {
			left = fmt.Sprintf("%d of %d", p.RecoveryLeft, p.RecoveryTotal)
		}
		if p.RecoveryRate > 0 {
			left += fmt.Sprintf(", %d/s", p.RecoveryRate)
		}
		if p.RecoverySeconds > 0 {
			left += ", about " + admin.Period(time.Duration(p.RecoverySeconds)*time.Second)
		}
		rows = append(rows, []string{fmt.Sprintf("%d/%d", p.PoolID, p.Num), strings.Join(p.State, "+"), num(p.Primary), numbers(p.OSDSet), num(p.Interval), num(p.Objects), num(p.Degraded), num(p.Misplaced), left})
	}
	table(w, rows)
	if line := p.Line(); line != "" {
		fmt.Fprintf(w, "\nrecovery: %s\n", line)
	}
	writeReasons(w, admin.Reasons(list), 0)
}

func numbers(list []uint64) string {
	out := make([]string, len(list))
	for i, n := range list {
		out[i] = num(n)
	}
	return strings.Join(out, ",")
}
