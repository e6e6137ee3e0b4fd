package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"holdfast/appliance/daemon"
	"holdfast/core/config"
)

func (a *app) gateway() *cobra.Command {
	c := &cobra.Command{
		Use: "gateway", Short: "Run a gateway: NBD, NFS and iSCSI", Args: args(0, 0, "no arguments"),
		Long:    "gateway serves every image over NBD (by its name), NFS (as a file of the export /) and iSCSI (as a target). Run as many as you like: they agree on everything a client can see.",
		Example: "  holdfast gateway --etcd_address 10.0.0.1:2379 --nbd_address 0.0.0.0:10809 --nbd_allow 10.0.0.0/8",
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, end := interrupts(c.Context())
			defer end()
			live, log, err := a.setup(ctx, "", config.Gateway|config.Client)
			if err != nil {
				return stopped(err)
			}
			key, err := daemon.Key(live.Values())
			if err != nil {
				return err
			}
			g, err := daemon.StartGateway(ctx, daemon.GatewayOptions{Config: live, Key: key, Host: daemon.Host(), Version: Version, Log: log})
			if err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			g.Follow()
			at := g.Addresses()
			a.ready("NBD " + strings.Join(at.NBD, ",") + "\nNFS " + strings.Join(at.NFS, ",") + "\niSCSI " + strings.Join(at.ISCSI, ","))
			<-ctx.Done()
			return a.stop(g.Stop)
		},
	}
	return a.withParams(c, config.Gateway, "nbd_address", "nfs_address", "iscsi_address", "gateway_id")
}
