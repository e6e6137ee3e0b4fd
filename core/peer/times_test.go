package peer

import (
	"errors"
	"testing"
	"time"

	"holdfast/core/loop"
)

func TestShorterTimesHoldForConnectionsThatStand(t *testing.T) {
	for _, before := range []time.Duration{0, 500 * time.Millisecond} { // the cut comes before or after the change
		w := newWorld(t)
		slow := func(o *Options) { o.IdleTimeout, o.PingTimeout = 30*time.Second, 30*time.Second }
		osd, client := start(t, w, "osd1", 1, slow), start(t, w, "client", 0, slow)
		client.hub.SetPeer(1, []loop.Addr{osd.addr})
		client.hub.Connect(1)
		w.RunUntil(func() bool { return client.hub.Connected(1) }, time.Second)
		w.Run(time.Second)
		w.Net.CutOneWay(osd.l, client.l)
		w.Run(before)
		for _, n := range []*node{osd, client} {
			n.hub.SetTimes(Times{IdleTimeout: 200 * time.Millisecond, PingTimeout: 300 * time.Millisecond})
		}
		if !w.RunUntil(func() bool { return len(client.down) == 1 }, 600*time.Millisecond) || !errors.Is(client.down[0], ErrSilent) {
			t.Fatalf("half open connection, 600 ms after the times were shortened: %v", client.down)
		}
	}
}

func TestShorterTimesKeepALivingConnection(t *testing.T) {
	w, osd, client := pair(t)
	client.hub.Connect(1)
	w.Run(time.Second)
	for _, n := range []*node{osd, client} {
		n.hub.SetTimes(Times{IdleTimeout: 50 * time.Millisecond, PingTimeout: 50 * time.Millisecond})
	}
	w.Run(3 * time.Second)
	for _, n := range []*node{osd, client} {
		n.hub.SetTimes(Times{IdleTimeout: 5 * time.Second, PingTimeout: 5 * time.Second})
	}
	w.Run(30 * time.Second)
	if len(client.down) != 0 || len(osd.lost) != 0 {
		t.Fatalf("a living connection was dropped: %v", client.down)
	}
	if got := client.hub.Times(); got.IdleTimeout != 5*time.Second || got.ConnectTimeout != 5*time.Second {
		t.Errorf("Times() = %+v", got)
	}
}

func TestShorterWaitsBetweenAttempts(t *testing.T) {
	w := newWorld(t)
	far := func(o *Options) { o.ConnectInterval, o.ConnectIntervalMax = time.Minute, 10*time.Minute }
	client, osd := start(t, w, "client", 0, far), start(t, w, "osd1", 1, nil)
	addr := osd.addr
	osd.l.Kill()
	client.hub.SetPeer(1, []loop.Addr{addr})
	client.hub.Connect(1)
	if !w.RunUntil(func() bool { return client.hub.peers[1].state == dialWaiting }, 10*time.Second) {
		t.Fatal("no attempt has failed")
	}
	start(t, w, "osd1", 1, nil)
	w.Run(5 * time.Second)
	client.hub.SetTimes(Times{ConnectInterval: 100 * time.Millisecond, ConnectIntervalMax: time.Second})
	if !w.RunUntil(func() bool { return client.hub.Connected(1) }, 1100*time.Millisecond) {
		t.Fatal("the wait goes by the interval of before")
	}
}
