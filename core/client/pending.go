package client

// Pending is what a Client has under way.
type Pending struct {
	Ops      int // submitted and not done
	Parts    int // of them that are with OSDs
	Ordered  int // changes in the order of their objects
	Listings int
	Calls    int // of the connections
}

// Pending is what is under way now; all of it is zero when everything that was begun has ended.
func (c *Client) Pending() Pending {
	return Pending{Ops: c.ops, Parts: c.flying, Ordered: c.order.n, Listings: len(c.lists), Calls: c.hub.Pending()}
}
