package peer

// Pending is how many calls have no answer yet.
func (b *Hub) Pending() int {
	n := b.failed.n
	for _, p := range b.order {
		n += p.queue.n
		if p.link != nil {
			n += p.link.sent.n
		}
	}
	return n
}
