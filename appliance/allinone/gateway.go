package allinone

import "context"

// gatewayPart is the gateway of the cluster.
type gatewayPart struct{}

func startGateway(ctx context.Context, c *Cluster) (*gatewayPart, error) { return nil, nil }

func (g *gatewayPart) stop(ctx context.Context) error { return nil }
