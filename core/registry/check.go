package registry

import (
	"errors"
	"fmt"
	"strings"
)

// Check returns a *RequestError when t breaks a rule of this interface, so that implementations refuse the same things.
func (t Txn) Check() error {
	for _, c := range t.If {
		switch {
		case c.Key == "" || c.Key[0] == '/':
			return &RequestError{t.String(), fmt.Errorf("condition on key %q: a key is not empty and starts without a slash", c.Key)}
		case c.Target < CompareValue || c.Target > CompareLease || c.Op < Equal || c.Op > NotEqual:
			return &RequestError{t.String(), fmt.Errorf("condition on key %q: no such comparison", c.Key)}
		}
	}
	if err := checkOps(t.Then); err != nil {
		return &RequestError{t.String(), err}
	}
	if err := checkOps(t.Else); err != nil {
		return &RequestError{t.String(), err}
	}
	return nil
}

// checkOps refuses what etcd refuses: a key written twice, or both written and deleted.
func checkOps(ops []Op) error {
	puts := make(map[string]bool, len(ops))
	for _, o := range ops {
		if o.Kind < Put || o.Kind > GetPrefix {
			return fmt.Errorf("operation %d on key %q does not exist", o.Kind, o.Key)
		}
		prefix := o.Kind == DeletePrefix || o.Kind == GetPrefix
		if o.Key == "" && !prefix || o.Key != "" && o.Key[0] == '/' {
			return fmt.Errorf("key %q: a key is not empty and starts without a slash", o.Key)
		}
		if o.Kind == Put {
			if puts[o.Key] {
				return fmt.Errorf("key %q is put twice", o.Key)
			}
			puts[o.Key] = true
		}
	}
	for _, o := range ops {
		switch {
		case o.Kind == Delete && puts[o.Key]:
			return fmt.Errorf("key %q is both put and deleted", o.Key)
		case o.Kind == DeletePrefix:
			for _, p := range ops {
				if p.Kind == Put && strings.HasPrefix(p.Key, o.Key) {
					return fmt.Errorf("key %q is both put and deleted", p.Key)
				}
			}
		}
	}
	return nil
}

// String describes the transaction by its keys, for errors.
func (t Txn) String() string {
	if len(t.Then) == 0 {
		return "an empty transaction"
	}
	return fmt.Sprintf("transaction on %q (%d operations)", t.Then[0].Key, len(t.Then))
}

// IsRequestError reports whether the registry refused the request, so that nothing was done.
func IsRequestError(err error) bool {
	_, ok := errors.AsType[*RequestError](err)
	return ok
}
