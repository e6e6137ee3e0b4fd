package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"holdfast/appliance/daemon"
	"holdfast/core/admin"
	"holdfast/core/config"
	"holdfast/core/images"
)

// Version is the release, stamped by the build.
var Version = "dev"

// app is one run of the program.
type app struct {
	out, err io.Writer
	program  string
	json     bool
	params   map[string]string // parameters that were given as flags
}

// Main runs the command line and returns the exit code.
func Main(program string, args []string) int {
	return run(program, args, os.Stdout, os.Stderr)
}

func run(program string, args []string, out, errs io.Writer) int {
	a := &app{out: out, err: errs, program: program, params: map[string]string{}}
	root := a.root()
	root.SetArgs(joinBools(args))
	root.SetOut(out)
	root.SetErr(errs)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return 0
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	fmt.Fprintf(errs, "holdfast: %v\n", err)
	return Code(err)
}

// joinBools joins the value of a true-or-false parameter to its flag: both "--readonly" and "--readonly false" are understood.
func joinBools(args []string) (out []string) {
	for i := 0; i < len(args); i++ {
		a := args[i]
		name, flag := strings.CutPrefix(a, "--")
		if p, ok := config.Lookup(strings.ReplaceAll(name, "-", "_")); flag && ok && p.Type == config.Bool && i+1 < len(args) {
			if _, err := strconv.ParseBool(args[i+1]); err == nil || slices.Contains([]string{"yes", "no", "on", "off"}, args[i+1]) {
				a += "=" + args[i+1]
				i++
			}
		}
		out = append(out, a)
	}
	return out
}

// exitError ends the program with a code, everything having been said.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// Code is the exit code for an error.
func Code(err error) int {
	var e *admin.Error
	if errors.As(err, &e) {
		return int(e.Kind)
	}
	return int(admin.Failed)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		SuggestionsMinimumDistance: 2, FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true},
		Use:   "holdfast",
		Short: "Distributed block storage, served over NBD, NFS and iSCSI",
		Long: `Holdfast stores virtual disks (images) in several copies on several disks, and serves each of them over NBD, NFS and iSCSI.

A cluster is named by --config DIR/holdfast.conf, by HOLDFAST_CONFIG, or by --etcd_address HOST:PORT.

Exit codes: 0 done, 1 tried and went wrong, 2 wrong command or configuration, 3 no such thing, 4 refused (exists already, in use, changed meanwhile), 5 the cluster does not answer, 6 an OSD must not be started again before somebody has looked: its disk has failed, or its disk or number is another one's.`,
		SilenceErrors: true, SilenceUsage: true,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			way := "`holdfast help` lists them"
			if like := c.SuggestionsFor(args[0]); len(like) > 0 {
				way = "did you mean " + strings.Join(like, " or ") + "?"
			}
			return &admin.Error{Kind: admin.Usage, What: "there is no command " + args[0], Way: way}
		},
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &admin.Error{Kind: admin.Usage, What: err.Error(), Way: fmt.Sprintf("`%s --help` lists the flags", c.CommandPath())}
	})
	root.SetGlobalNormalizationFunc(normalize)
	for name := range common {
		p, _ := config.Lookup(name)
		root.PersistentFlags().Var(&param{p, a.params}, flagOf(name), p.Help)
	}
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run a cluster:"}, &cobra.Group{ID: "see", Title: "See:"}, &cobra.Group{ID: "do", Title: "Images, pools and disks:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("run", a.up(), a.osd(), a.mon(), a.gateway())
	add("see", a.status(), a.df(), a.ls(), a.lsPools(), a.lsOSD(), a.pgList(), a.describe())
	add("do", a.create(), a.rm(), a.modify(), a.createPool(), a.modifyPool(), a.scrub(), a.fix(), a.disk(), a.etcd())
	root.AddCommand(a.version(), a.parameters())
	root.SetHelpCommand(helpCommand(root))
	return root
}

// helpCommand is `holdfast help COMMAND`.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Help about a command, or `help parameters`",
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return &admin.Error{Kind: admin.Usage, What: "there is no command " + strings.Join(args, " "), Way: "`holdfast help` lists them"}
			}
			return c.Help()
		},
	}
}

// normalize lets parameters be written with dashes, too.
func normalize(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if p, ok := config.Lookup(strings.ReplaceAll(name, "-", "_")); ok {
		name = p.Flag()
	}
	return pflag.NormalizedName(flagOf(name))
}

// flagOf is the flag of a parameter: its name, but --config for config_path.
func flagOf(name string) string {
	if name == "config_path" {
		return "config"
	}
	return name
}

// param is one parameter as a flag.
type param struct {
	p   *config.Param
	set map[string]string
}

// String is the value that was given.
func (v *param) String() string {
	if v.p == nil {
		return ""
	}
	return v.set[v.p.Name]
}

// Set takes a value; config.Load checks it with all the others.
func (v *param) Set(text string) error {
	v.set[v.p.Name] = text
	return nil
}

// Type names the value in the help.
func (v *param) Type() string {
	switch v.p.Name {
	case "config_path":
		return "FILE"
	case "etcd_address":
		return "HOST:PORT"
	}
	return strings.ReplaceAll(v.p.Type.String(), " ", "_")
}

// common are the parameters that say which cluster is meant.
var common = map[string]bool{"config_path": true, "etcd_address": true}

// withParams gives a command every parameter of the components as a flag; those that are not shown are left out of its help.
func (a *app) withParams(c *cobra.Command, use config.Component, shown ...string) *cobra.Command {
	show := map[string]bool{}
	for _, s := range shown {
		show[s] = true
	}
	for _, p := range config.Params() {
		if p.Used&use == 0 || common[p.Name] || c.Flags().Lookup(flagOf(p.Flag())) != nil {
			continue
		}
		f := c.Flags().VarPF(&param{p, a.params}, flagOf(p.Flag()), "", p.Help)
		if p.Type == config.Bool {
			f.NoOptDefVal = "true"
		}
		f.Hidden = !show[p.Name]
	}
	c.Long = strings.TrimSpace(c.Long + "\n\nEvery parameter of `holdfast help parameters` can be given as a flag.")
	return c
}

// withJSON gives a command --json.
func (a *app) withJSON(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVar(&a.json, "json", false, "print JSON, with stable names")
	return c
}

// args checks how many arguments there are.
func args(min, max int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < min || max >= 0 && len(args) > max {
			return &admin.Error{Kind: admin.Usage, What: fmt.Sprintf("%s wants %s", c.CommandPath(), what), Way: fmt.Sprintf("`%s --help` shows examples", c.CommandPath())}
		}
		return nil
	}
}

// config reads this process's configuration.
func (a *app) config() (*config.Values, error) { return daemon.LoadConfig(a.params) }

// quiet is the log of commands: warnings and errors only, unless more is asked for.
func (a *app) quiet(v *config.Values) *slog.Logger {
	level := slog.LevelError
	if v.Int("log_level") > 0 {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
}

// print writes v as JSON, or what table writes.
func (a *app) print(v any, table func(w io.Writer)) error {
	if !a.json {
		table(a.out)
		return nil
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "%s\n", b)
	return err
}

// explain gives the errors of core/images their kind.
func explain(err error) error {
	var (
		exists   *images.ExistsError
		missing  *images.NotFoundError
		children *images.ChildrenError
	)
	switch {
	case errors.As(err, &exists):
		return &admin.Error{Kind: admin.Refused, What: fmt.Sprintf("image %q exists already", exists.Name), Way: "choose another name; `holdfast ls` lists them"}
	case errors.As(err, &missing):
		return admin.NoImage(missing.Name)
	case errors.As(err, &children):
		return &admin.Error{Kind: admin.Refused, What: err.Error()}
	}
	return err
}

// name is how the program was called, for lines to be pasted.
func (a *app) name() string {
	if filepath.Base(a.program) == a.program {
		return a.program
	}
	abs, err := filepath.Abs(a.program)
	if err != nil {
		return a.program
	}
	return abs
}
