package cli

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"holdfast/core/admin"
	"holdfast/core/config"
	"holdfast/core/images"
)

func TestValuesOfBooleanParametersMayFollow(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"up --readonly false --dir x", "up --readonly=false --dir x"},
		{"up --allow-legacy-clients yes", "up --allow-legacy-clients=yes"},
		{"up --readonly --dir x", "up --readonly --dir x"},
		{"rm --force true", "rm --force true"},
		{"up --readonly", "up --readonly"},
	} {
		if got := joinBools(strings.Fields(c.in)); !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("joinBools(%s) = %v, want %s", c.in, got, c.want)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for err, want := range map[error]int{
		errors.New("x"): 1,
		fmt.Errorf("in a wrapper: %w", &admin.Error{Kind: admin.Unreachable}): 5,
		explain(fmt.Errorf("create: %w", &images.ExistsError{Name: "a"})):     4,
		explain(&images.NotFoundError{Name: "a"}):                             3,
		explain(&images.ChildrenError{Name: "a", Children: []string{"b"}}):    4,
	} {
		if got := Code(err); got != want {
			t.Errorf("Code(%v) = %d, want %d", err, got, want)
		}
	}
}

// TestEveryParameterIsAFlag checks that no command's own flag hides a parameter of the same name with another meaning, and that everything has an example.
func TestEveryParameterIsAFlag(t *testing.T) {
	a := &app{params: map[string]string{}, out: &bytes.Buffer{}, err: &bytes.Buffer{}}
	root := a.root()
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Runnable() && c != root && !c.HasSubCommands() && c.Name() != "help" && c.Example == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	for name, use := range map[string]config.Component{"up": config.All, "osd": config.OSD, "mon": config.Monitor, "gateway": config.Gateway, "ls": config.Client} {
		c, _, err := root.Find([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range config.Params() {
			if p.Used&use != 0 && c.Flags().Lookup(flagOf(p.Flag())) == nil && c.InheritedFlags().Lookup(flagOf(p.Flag())) == nil {
				t.Errorf("%s has no flag --%s", name, p.Flag())
			}
		}
	}
}

func TestUnknownCommandsAreRefusedWithAHint(t *testing.T) {
	for _, c := range []struct {
		args string
		want []string
	}{
		{"creat x", []string{"there is no command creat", "create"}},
		{"frobnicate", []string{"there is no command frobnicate", "help"}},
		{"disk erase", []string{"disk", "erase"}},
		{"help erase", []string{"erase"}},
	} {
		var out, errs bytes.Buffer
		if code := run("holdfast", strings.Fields(c.args), &out, &errs); code != 2 {
			t.Errorf("%s: exit code %d, %s", c.args, code, errs.String())
		}
		for _, w := range c.want {
			if !strings.Contains(errs.String(), w) {
				t.Errorf("%s: no %q in %s", c.args, w, errs.String())
			}
		}
	}
}
