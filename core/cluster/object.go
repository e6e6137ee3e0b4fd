package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Extra is the fields of an object that we do not know. They are kept when the object is written again, because they may be somebody else's.
type Extra map[string]json.RawMessage

// decode reads exactly one JSON value into v, which is a pointer.
func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("is empty, not JSON")
		}
		if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return fmt.Errorf("%s has the wrong type: %s", orWhole(t.Field), t.Value)
		}
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("has something after its JSON value")
	}
	return nil
}

func orWhole(field string) string {
	if field == "" {
		return "the value"
	}
	return field
}

// decodeObject reads data, which must be an object, into v and returns the fields that v's type does not name.
func decodeObject(data []byte, v any) (Extra, error) {
	var all Extra
	if err := decode(data, &all); err != nil {
		return nil, err
	}
	if all == nil {
		return nil, errors.New("is null, not an object")
	}
	if err := decode(data, v); err != nil {
		return nil, err
	}
	t := reflect.TypeOf(v).Elem()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		delete(all, name)
	}
	if len(all) == 0 {
		return nil, nil
	}
	return all, nil
}

// encodeObject writes v and the extra fields as one object with sorted fields.
func encodeObject(v any, extra Extra) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil || len(extra) == 0 {
		return b, err
	}
	var all Extra
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	for name, raw := range extra {
		if _, ok := all[name]; !ok {
			all[name] = raw
		}
	}
	return json.Marshal(all)
}

// mustJSON writes a value of ours, which cannot fail.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("cluster: %T does not marshal: %v", v, err))
	}
	return b
}
