package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parse reads the text of a value; the result has the Go type that the Type's comment names.
func (p *Param) parse(text string) (any, error) {
	text = strings.TrimSpace(text)
	if len(p.Choices) > 0 && !slices.Contains(p.Choices, text) {
		return nil, p.wrong(text)
	}
	switch p.Type {
	case Bool:
		switch strings.ToLower(text) {
		case "true", "1", "yes", "on":
			return true, nil
		case "false", "0", "no", "off":
			return false, nil
		}
	case Int:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && p.allows(float64(n)) {
			return n, nil
		}
	case Float:
		if f, err := strconv.ParseFloat(text, 64); err == nil && p.allows(f) {
			return f, nil
		}
	case String:
		return text, nil
	case Duration:
		if d, err := parseDuration(text, p.Unit); err == nil && p.allows(float64(d)/float64(units[p.Unit])) {
			return d, nil
		}
	case Bytes:
		if n, err := ParseBytes(text); err == nil && p.allows(float64(n)) {
			return n, nil
		}
	case List:
		return splitList(text), nil
	case Networks:
		return p.parseNetworks(text)
	}
	return nil, p.wrong(text)
}

func (p *Param) wrong(text string) error {
	if p.Secret {
		text = masked
	}
	if len(text) > 80 {
		text = text[:80] + "..."
	}
	return fmt.Errorf("is %q, want %s", text, p.Want())
}

func (p *Param) allows(v float64) bool {
	return !math.IsNaN(v) && !math.IsInf(v, 0) && (!p.bounded() || v >= p.Min && v <= p.Max)
}

// parseJSON reads a value from JSON: a scalar, a string that is parsed as a flag would be, or a list.
func (p *Param) parseJSON(raw json.RawMessage) (any, error) {
	text := strings.TrimSpace(string(raw))
	switch {
	case text == "" || text == "null":
		return nil, errors.New("is null; remove it to have the default")
	case text[0] == '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, err
		}
		return p.parse(s)
	case text[0] == '[':
		var items []any
		if err := json.Unmarshal(raw, &items); err != nil || p.Type != List && p.Type != Networks {
			return nil, p.wrong(text)
		}
		var parts []string
		for _, item := range items {
			parts = append(parts, fmt.Sprint(item))
		}
		return p.parse(strings.Join(parts, ","))
	case text[0] == '{':
		return nil, p.wrong(text)
	}
	return p.parse(text)
}

func splitList(text string) []string {
	out := []string{}
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}

func (p *Param) parseNetworks(text string) (any, error) {
	out := []netip.Prefix{}
	for _, item := range splitList(text) {
		n, err := netip.ParsePrefix(item)
		if err != nil {
			a, aerr := netip.ParseAddr(item)
			if aerr != nil {
				return nil, fmt.Errorf("has %q, want networks such as 10.0.0.0/8 or fd00::/8", item)
			}
			n = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, n.Masked())
	}
	return out, nil
}

var units = map[string]time.Duration{"us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}

// parseDuration reads a number of the unit, or one with a unit of its own.
func parseDuration(text, unit string) (time.Duration, error) {
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz")
	if number != text {
		unit = text[len(number):]
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || units[unit] == 0 || !(math.Abs(f)*float64(units[unit]) < math.MaxInt64) {
		return 0, errors.New("not a duration")
	}
	return time.Duration(math.Round(f * float64(units[unit]))), nil
}

// ParseBytes reads a number of bytes, or one with K, M, G or T (powers of 1024), such as 128K or 1.5G.
func ParseBytes(text string) (int64, error) {
	number, shift := strings.TrimSpace(text), 0
	if n := len(number); n > 0 {
		if i := strings.IndexByte("KMGT", number[n-1]&^0x20); i >= 0 {
			number, shift = number[:n-1], 10*(i+1)
		}
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil && n >= 0 && n<<shift>>shift == n {
		return n << shift, nil
	}
	f, err := strconv.ParseFloat(number, 64)
	f *= float64(int64(1) << shift)
	if err != nil || !(f >= 0 && f < math.MaxInt64) || f != math.Trunc(f) {
		return 0, fmt.Errorf("%q is not a number of bytes; write 4096, 128K, 32M, 10G or 1T", text)
	}
	return int64(f), nil
}

func formatBytes(n int64) string {
	for i, suffix := 4, "TGMK"; i > 0; i-- {
		if shift := 10 * i; n != 0 && n%(1<<shift) == 0 {
			return strconv.FormatInt(n>>shift, 10) + string(suffix[4-i])
		}
	}
	return strconv.FormatInt(n, 10)
}

// format writes a value as it could be written in a file.
func (p *Param) format(v any) string {
	switch v := v.(type) {
	case time.Duration:
		return strconv.FormatFloat(float64(v)/float64(units[p.Unit]), 'g', -1, 64)
	case int64:
		if p.Type == Bytes {
			return formatBytes(v)
		}
	case []string:
		return strings.Join(v, ",")
	case []netip.Prefix:
		var parts []string
		for _, n := range v {
			parts = append(parts, n.String())
		}
		return strings.Join(parts, ",")
	}
	return fmt.Sprint(v)
}
