package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/core/planted"
	"holdfast/tests/marked"
)

// TestEveryBugIsHuntedOnce compares the tables.
func TestEveryBugIsHuntedOnce(t *testing.T) {
	var bugs, hunted []string
	for _, b := range planted.Bugs {
		bugs = append(bugs, b.Name)
		if b.Says == "" {
			t.Errorf("nobody says what %s does", b.Name)
		}
	}
	for _, h := range hunts {
		hunted = append(hunted, h.Bug)
	}
	slices.Sort(bugs)
	slices.Sort(hunted)
	if !slices.Equal(bugs, hunted) || len(slices.Compact(slices.Clone(bugs))) != len(bugs) {
		t.Errorf("the bugs are %q, hunted are %q", bugs, hunted)
	}
	if len(bugs) < 60 {
		t.Errorf("there are only %d bugs", len(bugs))
	}
}

// TestProofListsEveryBug: docs/proof.md has a line for each bug, as it is now.
func TestProofListsEveryBug(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	table, err := marked.Open(filepath.Join(root, "docs", "proof.md"), begin, end)
	if err != nil {
		t.Fatal(err)
	}
	part := table.Text
	for _, b := range planted.Bugs {
		if !strings.Contains(part, "| "+b.Name+" | "+b.Says+" | ") {
			t.Errorf("docs/proof.md has no line for %s: make planted PLANTED=-update", b.Name)
		}
	}
	if n := strings.Count(part, "\n| ") - 1; n != len(planted.Bugs) {
		t.Errorf("docs/proof.md has lines for %d bugs, there are %d", n, len(planted.Bugs))
	}
	if want := fmt.Sprintf("\n%d bugs, all caught", len(planted.Bugs)); !strings.Contains(part, want) {
		t.Errorf("docs/proof.md does not say %q", want[1:])
	}
}

// release builds the program, and says where core/planted or a bug is found in it.
func release(t *testing.T, flags ...string) (found []string) {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "holdfast")
	cmd := exec.Command("go", append(append([]string{"build"}, flags...), "-o", path, "./appliance/holdfast")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	symbols, err := exec.Command("go", "tool", "nm", path).Output()
	if err != nil {
		t.Fatalf("go tool nm: %v", err)
	}
	if len(symbols) < 1<<20 {
		t.Fatalf("go tool nm lists only %d bytes", len(symbols))
	}
	look := func(where string, b []byte) {
		words := []string{"core/planted", "HOLDFAST_TEST_PLANTED"}
		for _, bug := range planted.Bugs {
			words = append(words, bug.Name)
		}
		for _, w := range words {
			if bytes.Contains(b, []byte(w)) {
				found = append(found, where+": "+w)
			}
		}
	}
	look("symbols", symbols)
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, s := range f.Sections { // those of the debugger are compressed: not the file's bytes, but what they hold
		if s.Type == elf.SHT_NOBITS || s.Type == elf.SHT_NULL {
			continue
		}
		b, err := s.Data()
		if err != nil {
			t.Fatalf("section %s: %v", s.Name, err)
		}
		look(s.Name, b)
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range info.Settings {
		if s.Key == "-tags" && strings.Contains(s.Value, "planted") {
			found = append(found, "built with the tag")
		}
	}
	return found
}

// TestReleaseHasNone looks for the bugs in the program as it is released, and in one with the tag, to see that they would be found.
func TestReleaseHasNone(t *testing.T) {
	if found := release(t); len(found) > 0 {
		t.Errorf("in the release: %q", found)
	}
	found := release(t, "-tags", "planted")
	for _, want := range []string{"symbols: core/planted", "built with the tag"} {
		if !slices.Contains(found, want) {
			t.Errorf("with the tag only %q is found, not %q", found, want)
		}
	}
	for _, b := range planted.Bugs {
		if !slices.ContainsFunc(found, func(s string) bool { return strings.HasSuffix(s, ": "+b.Name) }) {
			t.Errorf("with the tag %s is not found", b.Name)
		}
	}
}

// sample is tried with each `make test`: some of those that are caught at once.
var sample = []string{"flush-missing", "journal-late", "torn-tail", "pg-record-early", "reply-early", "read-uncommitted", "active-early", "unclean-served", "stranger-judges", "restart-grants"}

// TestSampleIsCaught shows that the machinery works, and finds nothing where nothing is planted.
func TestSampleIsCaught(t *testing.T) {
	list, err := chosen(strings.Join(sample, ","))
	if err != nil {
		t.Fatal(err)
	}
	b, err := build()
	if err != nil {
		t.Fatal(err)
	}
	defer b.remove()
	var found []catch
	for _, h := range list {
		c := b.hunt(h, time.Minute)
		t.Log(c)
		if !c.Caught {
			t.Errorf("%s is not caught: %s", h.Bug, c.What)
		}
		found = append(found, c)
	}
	if same, err := b.control(found, 2); err != nil {
		t.Errorf("without any bug (%v): %v", same, err)
	}
	if _, err := b.try(context.Background(), hunt{Bug: "no-such-bug", By: crash, Most: 1}); err == nil {
		t.Error("a bug that there is not is planted")
	}
}
