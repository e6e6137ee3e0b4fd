package admin

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

// filled is a cluster of three OSDs with two pools of two copies, in which OSD n uses so many percent.
func filled(used ...int) map[string]string {
	world := map[string]string{
		"config/pools": `{"1":{"name":"p","scheme":"replicated","pg_size":2,"pg_minsize":1,"pg_count":2,"failure_domain":"osd"},"2":{"name":"q","scheme":"replicated","pg_size":2,"pg_minsize":1,"pg_count":1,"failure_domain":"osd"}}`,
		"pg/config":    `{"items":{"1":{"1":{"osd_set":[1,2],"primary":1},"2":{"osd_set":[2,3],"primary":2}},"2":{"1":{"osd_set":[1,2],"primary":1}}}}`,
		"pool/stats/1": `{"used_raw_tb":0,"total_raw_tb":0.001,"pg_real_size":2,"raw_to_usable":2,"space_efficiency":1}`,
		"pool/stats/2": `{"used_raw_tb":0,"total_raw_tb":0.001,"pg_real_size":2,"raw_to_usable":2,"space_efficiency":1}`,
		"mon/master":   `{"hostname":"a"}`,
	}
	for i, percent := range used {
		size := 1000 << 20
		world[fmt.Sprintf("osd/stats/%d", i+1)] = fmt.Sprintf(`{"host":"a","size":%d,"free":%d,"data_block_size":131072}`, size, size/100*(100-percent))
		world[fmt.Sprintf("osd/state/%d", i+1)] = `{"state":"up","addresses":["10.0.0.1"],"host":"a","port":7000,"primary_enabled":true,"blockstore_enabled":true}`
	}
	return world
}

func TestFullOSDsAreNamedWithTheirPools(t *testing.T) {
	for _, c := range []struct {
		used   int
		how    Fullness
		global string
		want   string // of OSD 3; empty: nothing is said
	}{
		{94, Roomy, "", ""},
		{95, NearFull, "", `OSD 3 is nearly full (95.0 % used, 50 M free of 1000 M): at 97 % (osd_full_ratio) writes that need space will be refused in "p"; add OSDs or remove images`},
		{97, Full, "", `OSD 3 is full (97.0 % used, 30 M free of 1000 M): writes that need space are refused in "p"; what is there can be read, overwritten and removed; add OSDs or remove images`},
		{99, BackfillFull, "", `OSD 3 is full (99.0 % used, 10 M free of 1000 M): writes that need space are refused in "p", and recovery waits; what is there`},
		{80, NearFull, `{"osd_nearfull_ratio":0.8}`, "at 97 %"},
		{80, Full, `{"osd_full_ratio":"0.8"}`, "OSD 3 is full"},
		{80, BackfillFull, `{"osd_full_ratio":0.7,"osd_backfillfull_ratio":0.75}`, "recovery waits"},
		{96, NearFull, `{"osd_full_ratio":"nonsense"}`, "nearly full"},
	} {
		world := filled(10, 10, c.used)
		if c.global != "" {
			world["config/global"] = c.global
		}
		s := newWorld(t, world).snapshot()
		if how := OSDs(s)[2].Fullness; how != c.how {
			t.Errorf("%d %% and %s: %q, want %q", c.used, c.global, how, c.how)
		}
		all := strings.Join(Report(s).Warnings, "\n")
		if c.want == "" && strings.Contains(all, "full") || !strings.Contains(all, c.want) || strings.Contains(all, "OSD 1") {
			t.Errorf("%d %% and %s: %q, want %q", c.used, c.global, all, c.want)
		}
		for _, p := range Pools(s) {
			if said := strings.Contains(strings.Join(p.Warnings, "\n"), "OSD 3"); said != (c.want != "" && p.Name == "p") {
				t.Errorf("%d %% and %s: pool %s: %q", c.used, c.global, p.Name, p.Warnings)
			}
		}
	}
}

// TestOvercommittedPools: an image counts with its size, a snapshot with what it holds, and pools beside each other share their OSDs.
func TestOvercommittedPools(t *testing.T) {
	const mib = 1 << 20
	image := func(size int, more string) string { return fmt.Sprintf(`{"name":"i%d","size":%d%s}`, size, size, more) }
	for _, c := range []struct {
		name string
		keys map[string]string
		over map[string]string // by pool: what there is space for
	}{
		{"nothing", nil, nil},
		{"just enough", map[string]string{"config/inode/1/1": image(960*mib, "")}, nil},
		{"too large", map[string]string{"config/inode/1/1": image(1940*mib, "")}, map[string]string{"p": "may grow to 1.9 G together, and there is space for 970 M"}},
		{"many", map[string]string{"config/inode/1/1": image(600*mib, ""), "config/inode/1/2": image(601*mib, "")}, map[string]string{"p": "space for 970 M"}},
		{"two pools", map[string]string{"config/inode/1/1": image(800*mib, ""), "config/inode/2/1": image(400*mib, "")}, map[string]string{"p": "space for 646.7 M", "q": "space for 323.3 M"}},
		{"a snapshot that holds little", map[string]string{"config/inode/1/1": image(800*mib, ""), "config/inode/1/2": image(801*mib, `,"readonly":true`), "inode/stats/1/2": `{"raw_used":"1000000"}`}, nil},
		{"a snapshot that holds much", map[string]string{"config/inode/1/1": image(800*mib, ""), "config/inode/1/2": image(801*mib, `,"readonly":true`), "inode/stats/1/2": `{"raw_used":"800000000"}`}, map[string]string{"p": "space for 970 M"}},
	} {
		world := filled(1, 1, 1)
		maps.Copy(world, c.keys)
		s := newWorld(t, world).snapshot()
		all := strings.Join(Report(s).Warnings, "\n")
		if n := strings.Count(all, "over-committed"); n != len(c.over) {
			t.Errorf("%s: %d warnings, want %d: %s", c.name, n, len(c.over), all)
		}
		for _, p := range Pools(s) {
			want, over := c.over[p.Name]
			if said := strings.Join(p.Warnings, "\n"); !strings.Contains(said, want) || over != (said != "") || over != (p.Fits < p.Provisioned) || over && !strings.Contains(all, said) {
				t.Errorf("%s: pool %s, provisioned %d, fits %d: %q, want %q", c.name, p.Name, p.Provisioned, p.Fits, said, want)
			}
		}
	}
}
