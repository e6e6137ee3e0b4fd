package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Number is an unsigned integer that is written as a JSON number and read from a number or a string.
type Number uint64

// UnmarshalJSON reads 12, "12" and 12.0.
func (n *Number) UnmarshalJSON(b []byte) error {
	if isNull(b) {
		return nil
	}
	v, err := parseUint(b)
	if err == nil {
		*n = Number(v)
	}
	return err
}

// BigNumber is a Number that is written as a string, as the stock monitor writes its sums.
type BigNumber uint64

// MarshalJSON writes "12".
func (n BigNumber) MarshalJSON() ([]byte, error) {
	return strconv.AppendQuote(nil, strconv.FormatUint(uint64(n), 10)), nil
}

// UnmarshalJSON reads what Number reads.
func (n *BigNumber) UnmarshalJSON(b []byte) error {
	if isNull(b) {
		return nil
	}
	v, err := parseUint(b)
	if err == nil {
		*n = BigNumber(v)
	}
	return err
}

// Float is a number that is read from a JSON number or a string.
type Float float64

// UnmarshalJSON reads 0.5 and "0.5".
func (f *Float) UnmarshalJSON(b []byte) error {
	if isNull(b) {
		return nil
	}
	v, err := strconv.ParseFloat(scalar(b), 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return fmt.Errorf("%s is not a number", clip(b))
	}
	*f = Float(v)
	return nil
}

// Flag is a boolean that is read from true, 1, "1", "yes" and "true" and their opposites.
type Flag bool

// UnmarshalJSON reads them.
func (f *Flag) UnmarshalJSON(b []byte) error {
	switch strings.ToLower(scalar(b)) {
	case "true", "1", "yes", "on":
		*f = true
	case "false", "0", "no", "off", "", "null":
		*f = false
	default:
		return fmt.Errorf("%s is neither true nor false", clip(b))
	}
	return nil
}

// Strings is a list that is read from a JSON array of strings or from one string.
type Strings []string

// UnmarshalJSON reads both.
func (s *Strings) UnmarshalJSON(b []byte) error {
	*s = nil
	if b = bytes.TrimSpace(b); len(b) > 0 && b[0] == '"' {
		var one string
		if err := json.Unmarshal(b, &one); err != nil {
			return err
		}
		if one != "" {
			*s = Strings{one}
		}
		return nil
	}
	var many []string
	if err := json.Unmarshal(b, &many); err != nil {
		return fmt.Errorf("%s is neither a string nor a list of strings", clip(b))
	}
	*s = many
	return nil
}

// isNull reports a null, which means the same as a missing field.
func isNull(b []byte) bool { return string(bytes.TrimSpace(b)) == "null" }

// scalar is the text of a JSON number, word or string without escapes.
func scalar(b []byte) string {
	s := strings.TrimSpace(string(b))
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = strings.TrimSpace(s[1 : len(s)-1])
	}
	return s
}

func parseUint(b []byte) (uint64, error) {
	s := scalar(b)
	v, err := strconv.ParseUint(s, 10, 64)
	if err == nil {
		return v, nil
	}
	// 12.0 and 1e3 are integers too; beyond 2^53 a float would no longer be exact.
	if f, ferr := strconv.ParseFloat(s, 64); ferr == nil && f >= 0 && f <= 1<<53 && f == math.Trunc(f) {
		return uint64(f), nil
	}
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%s does not fit 64 bits", clip(b))
	}
	return 0, fmt.Errorf("%s is not a number from 0 up", clip(b))
}

// clip keeps foreign text short in messages.
func clip(b []byte) string {
	if len(b) > 40 {
		return string(b[:40]) + "..."
	}
	return string(b)
}
