package memory_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"holdfast/core/registry"
	"holdfast/core/registry/memory"
	"holdfast/core/registry/registrytest"
)

func TestConformance(t *testing.T) {
	for _, latency := range []time.Duration{0, 3 * time.Millisecond} {
		t.Run(fmt.Sprintf("latency=%v", latency), func(t *testing.T) {
			registrytest.Run(t, func(t *testing.T) *registrytest.Env {
				l := registrytest.NewLoop(t, true)
				s := memory.New(l)
				var handles []*memory.Handle
				return &registrytest.Env{
					Loop: l, TTL: 5 * time.Second, Compact: s.Compact, Expire: s.Expire,
					Open: func() registry.Registry {
						h := s.Open(l)
						h.Latency = func() time.Duration { return latency }
						handles = append(handles, h)
						return h
					},
					Cut: func(cut bool) {
						for _, h := range handles {
							h.Unreachable(cut)
						}
					},
				}
			})
		})
	}
}

func TestLostReplyLeavesTheChange(t *testing.T) {
	l := registrytest.NewLoop(t, true)
	s := memory.New(l)
	h := s.Open(l)
	h.LoseReplies(true)
	var got error
	h.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: "a"}}}, func(_ registry.TxnResult, err error) { got = err })
	l.Until("the answer", time.Minute, func() bool { return got != nil })
	if !errors.Is(got, registry.ErrUnavailable) || len(s.Dump()) != 1 {
		t.Errorf("err = %v with %d keys, want ErrUnavailable and the key", got, len(s.Dump()))
	}
}

func TestClosedHandleIsSilentAndItsLeaseRunsOut(t *testing.T) {
	l := registrytest.NewLoop(t, true)
	s := memory.New(l)
	h := s.Open(l)
	held := &lease{}
	le := h.Grant(5*time.Second, held)
	l.Until("the lease", time.Minute, func() bool { return held.granted })
	h.Txn(registry.Txn{Then: []registry.Op{{Kind: registry.Put, Key: "a", Lease: le.ID()}}}, func(registry.TxnResult, error) { t.Error("answered after Close") })
	h.Close()
	start := l.Now()
	l.Until("the end of the key", time.Minute, func() bool { return len(s.Dump()) == 0 })
	if took := l.Now().Sub(start); took > 5*time.Second+time.Millisecond || held.lost {
		t.Errorf("the key lived for %v after its holder, lost = %v", took, held.lost)
	}
}

type lease struct{ granted, lost bool }

func (h *lease) Granted(registry.Lease)     { h.granted = true }
func (h *lease) Lost(registry.Lease, error) { h.lost = true }
