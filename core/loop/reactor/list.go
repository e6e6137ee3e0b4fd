package reactor

// node is a source's membership in the two lists of a reactor.
type node struct {
	next   [2]source
	queued [2]bool
}

// list is a first-in first-out queue of sources through their nodes; which of the two nodes is a parameter.
type list struct {
	head, tail source
	n          int
}

func which(dirty bool) int {
	if dirty {
		return 1
	}
	return 0
}

func (l *list) push(s source, nd *node, dirty bool) {
	w := which(dirty)
	if nd.queued[w] {
		return
	}
	nd.queued[w], nd.next[w] = true, nil
	if l.tail == nil {
		l.head = s
	} else {
		nodeOf(l.tail).next[w] = s
	}
	l.tail = s
	l.n++
}

// pop returns nil when the list is empty.
func (l *list) pop(dirty bool) source {
	s := l.head
	if s == nil {
		return nil
	}
	w := which(dirty)
	nd := nodeOf(s)
	l.head = nd.next[w]
	if l.head == nil {
		l.tail = nil
	}
	nd.next[w], nd.queued[w] = nil, false
	l.n--
	return s
}

func nodeOf(s source) *node {
	switch s := s.(type) {
	case *Conn:
		return &s.node
	case *Listener:
		return &s.node
	}
	panic("reactor: unknown source")
}
