package iscsi

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// DefaultPrefix is the part of a target name before the image's.
const DefaultPrefix = "iqn.2026-11.local.holdfast"

// maxName is the longest iSCSI name, bytes (RFC 7143, section 4.2.7.1).
const maxName = 223

// TargetName is the iSCSI name under which an image is served: prefix, a colon and the image's name. An iSCSI name holds lower-case letters, digits, '-', '.' and ':'
// (RFC 3722, section 6; open-iscsi ignores a whole discovery with another byte in it). Every other byte is written as a colon and two hexadecimal digits, the colon itself included, so
// ImageName gets the name back. It is "" when the result would be
// longer than an iSCSI name may be: such an image has no target.
func TargetName(prefix, image string) string {
	var b strings.Builder
	b.WriteString(prefix)
	b.WriteByte(':')
	for i := range len(image) {
		if c := image[i]; plain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, ":%02x", c)
		}
	}
	if image == "" || b.Len() > maxName {
		return ""
	}
	return b.String()
}

// ImageName finds the image that a target name means. Upper-case letters in the name are those of the lower case, as RFC 3722 has it.
func ImageName(prefix, target string) (string, bool) {
	if len(target) > maxName {
		return "", false
	}
	rest, ok := strings.CutPrefix(strings.ToLower(target), strings.ToLower(prefix)+":")
	if !ok || rest == "" {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(rest); i++ {
		c := rest[i]
		switch {
		case plain(c):
			b.WriteByte(c)
		case c == ':' && i+2 < len(rest):
			var d [1]byte
			if _, err := hex.Decode(d[:], []byte(rest[i+1:i+3])); err != nil || plain(d[0]) {
				return "", false // one image has one name
			}
			b.WriteByte(d[0])
			i += 2
		default:
			return "", false
		}
	}
	return b.String(), true
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.'
}

// validInitiator accepts the names of RFC 7143, section 4.2.7: iqn., eui. or naa., of printable bytes without spaces. It is lenient in the rest, as initiators are.
func validInitiator(name string) bool {
	if len(name) < 5 || len(name) > maxName {
		return false
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] == 0x7f || name[i] == ',' {
			return false
		}
	}
	switch strings.ToLower(name[:4]) {
	case "iqn.", "eui.", "naa.":
		return true
	}
	return false
}
