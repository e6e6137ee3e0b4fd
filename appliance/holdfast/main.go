// Command holdfast is all of Holdfast: the daemons, the cluster in one process, and the tools.
package main

import (
	"os"

	"holdfast/appliance/cli"
)

func main() { os.Exit(cli.Main(os.Args[0], os.Args[1:])) }
