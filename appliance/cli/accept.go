package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"holdfast/appliance/bootstrap"
	"holdfast/appliance/daemon"
	"holdfast/core/admin"
	"holdfast/core/config"
	"holdfast/osd/store"
)

// acceptance is the result of `disk accept`.
type acceptance struct {
	Device   string             `json:"device"`
	StoreID  string             `json:"store_id"`
	Boot     uint64             `json:"boot"`
	Sequence uint64             `json:"sequence"` // last journal entry that is there
	Objects  uint64             `json:"objects"`
	Bytes    uint64             `json:"bytes"`
	Damage   []store.Finding    `json:"damage"`
	More     int                `json:"more_damage,omitempty"`
	Gaps     []store.Gap        `json:"journal_gaps"`
	Older    uint64             `json:"objects_falling_back"` // with --keep-id
	Lost     uint64             `json:"objects_left_out"`     // with --keep-id
	NotKept  string             `json:"cannot_be_kept,omitempty"`
	Begun    string             `json:"begun,omitempty"` // empty or keep: an acceptance that was interrupted
	SetBack  bool               `json:"set_back"`        // an OSD found the store older than the cluster knows it
	Cluster  bootstrap.Standing `json:"cluster"`

	Needed   bool   `json:"needed"`
	Accepted string `json:"accepted,omitempty"` // empty or keep, once it is done
	NewID    string `json:"new_store_id,omitempty"`
}

func newAcceptance(path string, e *store.Examination, st bootstrap.Standing) acceptance {
	v := acceptance{
		Device: path, StoreID: e.Superblock.StoreID.String(), Boot: e.Superblock.Boot, Sequence: e.Sequence, Objects: e.Objects, Bytes: e.Bytes, Damage: e.Findings, More: e.More, Gaps: e.Gaps,
		Older: e.Older, Lost: e.Lost, Begun: e.Accepted, SetBack: e.SetBack, Cluster: st,
	}
	if v.Damage == nil {
		v.Damage = []store.Finding{}
	}
	if v.Gaps == nil {
		v.Gaps = []store.Gap{}
	}
	if e.NotKept != nil {
		v.NotKept = e.NotKept.Error()
	}
	if v.Begun == "keep" || v.Begun == "empty" {
		v.Needed = true
	} else {
		v.Begun = ""
	}
	v.Needed = v.Needed || e.Damaged() || e.SetBack || st.Verdict == bootstrap.Older || st.Verdict == bootstrap.Retired
	return v
}

func (a *app) diskAccept() *cobra.Command {
	var sure, keep bool
	c := &cobra.Command{
		Use: "accept DEVICE", Short: "Take the damage out of an OSD's disk, saying what may be lost", Args: args(1, 1, "a device or a file"),
		Long: `accept is for a disk that its OSD refuses: one that is damaged, one that was set back to an earlier state, or one in whose place another was put. The OSD empties it by itself when no
PG needs it; accept decides before that, also while the OSD waits. It says what is wrong and what may be lost. Without --yes that is all: nothing is changed, and it exits with 4. A disk that is in order needs nothing, and it exits with 0.

With --yes the disk becomes an empty one under a new identity, and the OSD is refilled from the other copies: nothing is lost of what has another copy.

With --yes --keep-id what is whole stays on the disk, under the old identity, and counts as before in the history of its PGs. Do that only when there is no other copy: writes that were
acknowledged may then be missing, and the cluster does not notice that they are.

Whether a disk was set back is for the cluster to say: name it by --config or --etcd_address. Interrupted, accept leaves the disk as it was, or accepted; run it again.`,
		Example: "  holdfast disk accept /dev/sdb\n  holdfast disk accept --yes /dev/sdb\n  holdfast disk accept --yes --keep-id --config /etc/holdfast/holdfast.conf /dev/sdb",
		RunE: func(c *cobra.Command, names []string) error {
			ctx, end := interrupts(c.Context())
			defer end()
			return a.accept(ctx, names[0], sure, keep)
		},
	}
	c.Flags().BoolVar(&sure, "yes", false, "do it: what accept says may be lost is lost")
	c.Flags().BoolVar(&keep, "keep-id", false, "keep what is whole, under the old identity: acknowledged writes may be missing")
	return a.withParams(a.withJSON(c), config.OSD, "meta_device", "journal_device")
}

func (a *app) accept(ctx context.Context, path string, sure, keep bool) error {
	v, err := a.config()
	if err != nil {
		return err
	}
	log, disks := a.quiet(v), daemon.DisksOf(v, path)
	t, err := daemon.NewThread(v.String("loop"), "disk", log)
	if err != nil {
		return err
	}
	defer t.Stop()
	e, err := bootstrap.Examine(ctx, t, v, disks)
	if err != nil {
		return acceptProblem(path, err)
	}
	st, asking := bootstrap.StandingOf(ctx, v, log, &e)
	out := newAcceptance(path, &e, st)
	switch {
	case asking != nil && (!out.Needed || keep && out.SetBack):
		// Only the cluster knows.
		var ae *admin.Error
		if errors.As(asking, &ae) {
			return &admin.Error{Kind: ae.Kind, What: path + " has no damage; whether it was set back only the cluster can say", Err: asking}
		}
		return asking
	case !out.Needed:
		return a.print(out, func(w io.Writer) {
			fmt.Fprintf(w, "%s is in order, and as new as the cluster knows it: there is nothing to accept\n", path)
		})
	case !sure:
		if err := a.print(out, func(w io.Writer) { writeAcceptance(w, &out) }); err != nil {
			return err
		}
		return &exitError{int(admin.Refused)}
	case keep && e.NotKept != nil:
		return &admin.Error{Kind: admin.Refused, What: "nothing on " + path + " can be kept", Err: e.NotKept, Way: "leave --keep-id out: it becomes an empty disk"}
	case keep && out.Begun == "empty":
		return &admin.Error{Kind: admin.Refused, What: path + " was accepted as an empty disk before: nothing of it is left to keep", Way: "leave --keep-id out"}
	}
	sb, err := bootstrap.Accept(ctx, t, v, disks, keep)
	if err != nil {
		return acceptProblem(path, err)
	}
	out.Accepted, out.NewID = "empty", sb.StoreID.String()
	if keep {
		out.Accepted, out.NewID = "keep", ""
		if st.Verdict == bootstrap.Older || st.Verdict == bootstrap.Retired {
			if e, err = bootstrap.Examine(ctx, t, v, disks); err == nil {
				err = bootstrap.Recognize(ctx, v, log, &e)
			}
			if err != nil {
				return fmt.Errorf("%s is kept, and the cluster does not know it yet: run the command again: %w", path, err)
			}
		}
	}
	return a.print(out, func(w io.Writer) {
		if keep {
			fmt.Fprintf(w, "accepted: %s keeps its identity %s and what was whole; start its OSD, unless it waits already\nwarning: writes that were acknowledged may be missing on it, and the cluster does not notice; check what is on its images\n", path, out.StoreID)
			return
		}
		fmt.Fprintf(w, "accepted: %s is empty, with the identity %s; start its OSD, unless it waits already, and it is refilled from the other copies\n", path, out.NewID)
	})
}

// acceptProblem explains a disk that cannot be accepted.
func acceptProblem(path string, err error) error {
	var damage *store.DamagedError
	if errors.As(err, &damage) && damage.Area == "superblock" {
		return &admin.Error{Kind: admin.Refused, What: "nothing of the store on " + path + " can be found", Err: err, Way: "`holdfast disk format --force " + path + "` makes an empty one, to be refilled from the other copies"}
	}
	return diskProblem(path, err)
}

// writeAcceptance says in words what is wrong and what may be lost.
func writeAcceptance(w io.Writer, v *acceptance) {
	fmt.Fprintf(w, "%s: store %s, opened %d times\n", v.Device, v.StoreID, v.Boot)
	switch v.Begun {
	case "empty":
		fmt.Fprintf(w, "\nIt was accepted as an empty disk before, and that was interrupted: its OSD goes on with that when it starts, and so does\n  holdfast disk accept --yes %s\n", v.Device)
		return
	case "keep":
		fmt.Fprintln(w, "\nIt was accepted with --keep-id before, and that was interrupted: its OSD goes on with that when it starts.")
	}
	fmt.Fprintf(w, "\nwhat is wrong\n")
	for _, g := range v.Gaps {
		fmt.Fprintf(w, "  %s\n", gapText(&g))
	}
	for _, f := range v.Damage {
		if f.Area != "journal" || len(v.Gaps) == 0 {
			fmt.Fprintf(w, "  %s, device offset %d: %s\n", f.Area, f.Offset, f.What)
		}
	}
	if v.More > 0 {
		fmt.Fprintf(w, "  and %d more\n", v.More)
	}
	switch {
	case v.Cluster.Verdict == bootstrap.Older:
		fmt.Fprintf(w, "  It was set back: the cluster knows it as OSD %d's from opening %d and journal entry %d, the disk is at opening %d and entry %d.\n  Up to %d entries are missing, and every one of them may have been acknowledged.\n",
			v.Cluster.OSD, v.Cluster.Boot, v.Cluster.Sequence, v.Boot, v.Sequence, max(v.Cluster.Sequence, v.Sequence)-v.Sequence)
	case v.Cluster.Verdict == bootstrap.Retired:
		fmt.Fprintf(w, "  Another disk has taken its place as OSD %d's: what is here is what it was then.\n", v.Cluster.OSD)
	case v.SetBack:
		fmt.Fprintln(w, "  Its OSD found that it was set back: the cluster knows a newer state of it.")
	}
	if v.Cluster.Verdict == bootstrap.Unasked {
		fmt.Fprintf(w, "  The cluster was not asked whether it knows a newer state of the disk (%s).\n", v.Cluster.Reason)
	}
	fmt.Fprintf(w, "\nwhat may be lost\n")
	fmt.Fprintf(w, "  with --yes: everything on this disk, %d objects in %s. It becomes an empty one under a new identity, and is refilled from the other copies: what has another copy\n  is not lost. `holdfast pg-list incomplete` shows PGs that have none.\n",
		v.Objects, size(v.Bytes))
	if v.NotKept != "" {
		fmt.Fprintf(w, "  --keep-id is not possible: %s\n", v.NotKept)
	} else {
		fmt.Fprintf(w, "  with --yes --keep-id: what is missing above, and no more. Of the objects that can be read %d fall back to an older version or to nothing, and %d are left out; those of which nothing\n  is known any more are not counted. The disk goes on counting as before: acknowledged writes may then be missing, and the cluster does not notice. Only when there is no\n  other copy.\n",
			v.Older, v.Lost)
	}
	fmt.Fprintln(w, "\nnothing was changed")
}

func gapText(g *store.Gap) string {
	text := fmt.Sprintf("journal, device offset %d to %d: batches %d to %d were durable and are not there", g.Offset, g.Offset+g.Length, g.First, g.Last)
	if g.First == g.Last {
		text = fmt.Sprintf("journal, device offset %d to %d: batch %d was durable and is not there", g.Offset, g.Offset+g.Length, g.First)
	}
	switch {
	case g.Entries > 0 && g.Entry > 0:
		text += fmt.Sprintf(": entries %d to %d", g.Entry, g.Entry+g.Entries-1)
	case g.Entry > 0:
		text += fmt.Sprintf(": all entries from %d on", g.Entry)
	default:
		text += ": how many entries is not known"
	}
	text += fmt.Sprintf("; %d entries follow", g.After)
	if g.Opening > 0 {
		text += fmt.Sprintf("; written since opening %d", g.Opening)
	}
	return text
}
