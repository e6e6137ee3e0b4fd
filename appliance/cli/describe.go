package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"holdfast/core/admin"
	"holdfast/core/config"
)

func (a *app) describe() *cobra.Command {
	var f admin.PGFilter
	c := &cobra.Command{
		Use: "describe [PG...]", Short: "Why PGs wait or are not whole, and on whom it hangs", Args: args(0, -1, "PGs"),
		Long:    "describe tells of PGs, named as POOL/NUMBER, why they wait or are not whole, what would help, and what every OSD has to do with it. Without names it tells of all that are not active and whole.",
		Example: "  holdfast describe\n  holdfast describe 1/7\n  holdfast describe --osd 2 --json",
		RunE: func(c *cobra.Command, names []string) error {
			s, err := a.snapshot(c)
			if err != nil {
				return err
			}
			list, err := admin.Describe(s, names, f)
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { writeDescribed(w, list) })
		},
	}
	c.Flags().StringVarP(&f.Pool, "pool", "p", "", "only PGs of this pool")
	c.Flags().Uint64Var(&f.OSD, "osd", 0, "only PGs whose set holds this OSD")
	return a.withParams(a.withJSON(c), config.Client)
}

// writeDescribed writes a paragraph for each PG.
func writeDescribed(w io.Writer, list []admin.Described) {
	if len(list) == 0 {
		fmt.Fprintln(w, "every PG is active and whole")
	}
	for i, p := range list {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "pg %d/%d of pool %s: %s\n", p.PoolID, p.Num, p.Pool, strings.Join(p.State, "+"))
		if p.Reason != "" {
			fmt.Fprintf(w, "  %s\n", p.Reason)
		}
		objects := fmt.Sprintf("%d", p.Objects)
		for _, n := range []struct {
			count uint64
			word  string
		}{{p.Clean, "clean"}, {p.Degraded, "degraded"}, {p.Misplaced, "misplaced"}, {p.Incomplete - min(p.Incomplete, p.Unfound), "incomplete"}, {p.Unfound, "unfound"}, {p.Corrupted, "corrupted"}} {
			if n.count > 0 {
				objects += fmt.Sprintf(", %d %s", n.count, n.word)
			}
		}
		rows := [][]string{{"  objects", objects}}
		if p.RecoveryLeft > 0 {
			rows = append(rows, []string{"  to recover", fmt.Sprintf("%d of %d", p.RecoveryLeft, p.RecoveryTotal)})
		}
		interval := fmt.Sprintf("%d, which serves", p.Interval)
		if p.Interval != p.Activated {
			interval = fmt.Sprintf("%d; the last that served was %d", p.Interval, p.Activated)
		}
		rows = append(rows, []string{"  interval", interval})
		for _, set := range p.Sets {
			rows = append(rows, []string{"  written by", fmt.Sprintf("%s in interval %d: one of them has to be heard", numbers(set.OSDs), set.Interval)})
		}
		for _, o := range p.OSDs {
			rows = append(rows, []string{fmt.Sprintf("  OSD %d", o.Num), o.Text()})
		}
		table(w, rows)
	}
}
