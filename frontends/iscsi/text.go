package iscsi

import (
	"bytes"
	"errors"
	"fmt"
)

// Limits of text segments (RFC 7143, section 6.1).
const (
	maxKey   = 63
	maxValue = 255 // but for names and CHAP's binary values, which are bounded by the segment
	maxKeys  = 64  // in one segment sequence: three times what RFC 7143 defines
)

// pair is one key=value of a text segment.
type pair struct{ key, value string }

var errText = errors.New("malformed text segment")

// parseText splits a data segment of key=value pairs, each ended by a null.
func parseText(b []byte) ([]pair, error) {
	var pairs []pair
	for len(b) > 0 {
		end := bytes.IndexByte(b, 0)
		if end < 0 {
			return nil, fmt.Errorf("a value of %d bytes without its null: %w", len(b), errText)
		}
		if end == 0 { // padding inside the segment, which some initiators send
			b = b[1:]
			continue
		}
		eq := bytes.IndexByte(b[:end], '=')
		if eq <= 0 || eq > maxKey {
			return nil, fmt.Errorf("a key of %d bytes: %w", eq, errText)
		}
		if len(pairs) == maxKeys {
			return nil, fmt.Errorf("more than %d keys: %w", maxKeys, errText)
		}
		pairs = append(pairs, pair{string(b[:eq]), string(b[eq+1 : end])})
		b = b[end+1:]
	}
	return pairs, nil
}

// appendPair adds key=value and its null.
func appendPair(b []byte, key, value string) []byte {
	b = append(b, key...)
	b = append(b, '=')
	b = append(b, value...)
	return append(b, 0)
}

// find returns the value of a key.
func find(pairs []pair, key string) (string, bool) {
	for _, p := range pairs {
		if p.key == key {
			return p.value, true
		}
	}
	return "", false
}
