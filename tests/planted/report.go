package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"

	"holdfast/tests/marked"
)

// The part of docs/proof.md that is written from what was found.
const (
	begin = "<!-- make planted writes from here -->\n"
	end   = "<!-- make planted writes up to here -->\n"
)

// record writes the table.
func record(found []catch, same result) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	part, err := marked.Open(filepath.Join(root, "docs", "proof.md"), begin, end)
	if err != nil {
		return err
	}
	return part.Write(table(found, same))
}

func table(found []catch, same result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d bugs, all caught. The same tests without any bug (%v) found nothing.\n\n", len(found), same)
	b.WriteString("| bug | what it does | caught by | tried | seconds |\n|---|---|---|---|---|\n")
	for _, c := range found {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %.1f |\n", c.Bug, says(c.Bug), by(c), tried(c), c.Elapsed.Seconds())
	}
	return b.String()
}

// by names what shows the bug again; a long sequence of the crash tester only by its beginning.
func by(c catch) string {
	switch c.By {
	case crash:
		if base, seq, ok := cut2(c.Where); ok && len(c.Where) > 40 {
			return fmt.Sprintf("crash, a long sequence (`%s/%s...`)", base, seq)
		}
		return "crash, state `" + c.Where + "`"
	case sim:
		if c.From > 0 {
			return fmt.Sprintf("sim, %s of draw %d (from %d on)", c.Where, cmp.Or(c.Draw, huntDraw), c.From)
		}
		return "sim, " + c.Where
	case model:
		return "peering model, " + c.Where
	}
	return "`" + c.Test + "`"
}

func cut2(state string) (base, sequence string, ok bool) {
	parts := strings.SplitN(state, "/", 3)
	if len(parts) < 3 || len(parts[2]) < 12 {
		return "", "", false
	}
	return parts[0] + "/" + parts[1], parts[2][:12], true
}

func tried(c catch) string {
	what := [...]string{"state", "seed", "test", "history"}[c.By]
	if c.Tried == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %s", c.Tried, [...]string{"states", "seeds", "tests", "histories"}[c.By])
}
