package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"holdfast/core/registry"
)

// Txn implements registry.Registry.
func (r *Registry) Txn(t registry.Txn, done func(registry.TxnResult, error)) {
	if err := t.Check(); err != nil {
		r.post(func() { done(registry.TxnResult{}, err) })
		return
	}
	timeout := t.Timeout
	switch timeout {
	case 0:
		timeout = r.Times().QuickTimeout
	case registry.Slow:
		timeout = r.Times().SlowTimeout
	}
	attempts := 1
	if t.ReadOnly() {
		attempts = r.Times().MaxAttempts
	}
	var res registry.TxnResult
	r.call(timeout, func(ctx context.Context) (err error) {
		for ; attempts > 0; attempts-- {
			err = r.at(ctx, func(ctx context.Context, c *clientv3.Client) (err error) {
				res, err = r.txn(ctx, c, t)
				return err
			})
			if err == nil || registry.IsRequestError(err) || ctx.Err() != nil {
				return err
			}
			pause(ctx, retryPause)
		}
		return err
	}, func(err error) {
		if err != nil {
			done(registry.TxnResult{}, classify(t.String(), err))
			return
		}
		done(res, nil)
	})
}

func (r *Registry) txn(ctx context.Context, client *clientv3.Client, t registry.Txn) (res registry.TxnResult, err error) {
	compares := make([]clientv3.Cmp, len(t.If))
	for i, c := range t.If {
		compares[i] = r.compare(c)
	}
	resp, err := client.Txn(ctx).If(compares...).Then(r.ops(t.Then)...).Else(r.ops(t.Else)...).Commit()
	if err != nil {
		return res, classify(t.String(), err)
	}
	res = registry.TxnResult{Succeeded: resp.Succeeded, Revision: registry.Revision(resp.Header.Revision), Results: make([][]registry.KV, len(resp.Responses))}
	for i, one := range resp.Responses {
		found := one.GetResponseRange()
		if found == nil || len(found.Kvs) == 0 {
			continue
		}
		res.Results[i] = make([]registry.KV, len(found.Kvs))
		for j, kv := range found.Kvs {
			res.Results[i][j] = r.kv(kv)
		}
	}
	return res, nil
}

var operators = map[registry.CompareOp]string{registry.Equal: "=", registry.Less: "<", registry.Greater: ">", registry.NotEqual: "!="}

func (r *Registry) compare(c registry.Compare) clientv3.Cmp {
	key, op := r.root+c.Key, operators[c.Op]
	switch c.Target {
	case registry.CompareValue:
		return clientv3.Compare(clientv3.Value(key), op, string(c.Value))
	case registry.CompareMod:
		return clientv3.Compare(clientv3.ModRevision(key), op, c.Num)
	case registry.CompareCreate:
		return clientv3.Compare(clientv3.CreateRevision(key), op, c.Num)
	case registry.CompareVersion:
		return clientv3.Compare(clientv3.Version(key), op, c.Num)
	}
	return clientv3.Compare(clientv3.LeaseValue(key), op, c.Num)
}

func (r *Registry) ops(in []registry.Op) []clientv3.Op {
	out := make([]clientv3.Op, len(in))
	for i, o := range in {
		key := r.root + o.Key
		switch o.Kind {
		case registry.Put:
			out[i] = clientv3.OpPut(key, string(o.Value), clientv3.WithLease(clientv3.LeaseID(o.Lease)))
		case registry.Delete:
			out[i] = clientv3.OpDelete(key)
		case registry.DeletePrefix:
			out[i] = clientv3.OpDelete(key, clientv3.WithPrefix())
		case registry.Get:
			out[i] = clientv3.OpGet(key)
		case registry.GetPrefix:
			out[i] = clientv3.OpGet(key, clientv3.WithPrefix())
		}
	}
	return out
}

func (r *Registry) kv(kv *mvccpb.KeyValue) registry.KV {
	return registry.KV{
		Key: strings.TrimPrefix(string(kv.Key), r.root), Value: kv.Value, Create: registry.Revision(kv.CreateRevision), Mod: registry.Revision(kv.ModRevision),
		Version: kv.Version, Lease: registry.LeaseID(kv.Lease),
	}
}

// classify tells a refusal, after which nothing was done, from everything after which that is not known.
func classify(what string, err error) error {
	if registry.IsRequestError(err) || errors.Is(err, registry.ErrUnavailable) {
		return err
	}
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return &registry.RequestError{What: what, Err: fmt.Errorf("%w (%w)", registry.ErrNoLease, err)}
	}
	if e, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		switch e.Code() {
		case codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.OutOfRange, codes.PermissionDenied, codes.Unauthenticated, codes.AlreadyExists, codes.Unimplemented:
			return &registry.RequestError{What: what, Err: err}
		}
		if errors.Is(err, rpctypes.ErrNoSpace) {
			return &registry.RequestError{What: what, Err: fmt.Errorf("%w; compact and defragment etcd, then disarm its alarm", err)}
		}
	}
	return fmt.Errorf("%w: %s: %w", registry.ErrUnavailable, what, err)
}
