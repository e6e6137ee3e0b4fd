package admin

import "fmt"

// Size writes a number of bytes for people: 1536 is "1.5 K".
func Size(n int64) string {
	if n < 0 {
		return "-" + Size(-n)
	}
	v, units := float64(n), []string{"B", "K", "M", "G", "T", "P"}
	i := 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	if i == 0 || v == float64(int64(v)) {
		return fmt.Sprintf("%d %s", int64(v), units[i])
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}
