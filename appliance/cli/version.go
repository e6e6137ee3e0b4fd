package cli

import (
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"holdfast/core/config"
)

func (a *app) version() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use: "version", Short: "Print the version", Args: args(0, 0, "no arguments"), Example: "  holdfast version --json",
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				OS      string `json:"os"`
				Arch    string `json:"arch"`
			}{Version, runtime.Version(), runtime.GOOS, runtime.GOARCH}
			return a.print(v, func(w io.Writer) { fmt.Fprintf(w, "holdfast %s (%s, %s/%s)\n", v.Version, v.Go, v.OS, v.Arch) })
		},
	})
}

// parameters is a help topic made of the table of parameters.
func (a *app) parameters() *cobra.Command {
	var b strings.Builder
	b.WriteString("Parameters: as flags (--name value), in the environment (HOLDFAST_NAME), in etcd (config/global), in holdfast.conf; the first that is there wins.\n")
	group := ""
	for _, p := range config.Params() {
		if p.Group != group {
			group = p.Group
			fmt.Fprintf(&b, "\n%s\n", group)
		}
		def := p.Default
		if def == "" {
			def = "none"
		}
		fmt.Fprintf(&b, "  %-28s %s\n  %-28s %s; default %s %s\n", p.Name, p.Help, "", p.Want(), def, p.Unit)
	}
	return &cobra.Command{Use: "parameters", Short: "All parameters", Long: b.String()}
}
