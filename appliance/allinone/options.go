package allinone

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"holdfast/appliance/bootstrap"
	"holdfast/core/admin"
	"holdfast/core/cluster"
	"holdfast/core/config"
)

// Defaults of a new cluster.
const (
	DefaultOSDs     = 3
	DefaultOSDSize  = 2 << 30
	DefaultReplicas = 3
	DefaultImage    = "demo:1G"
	DefaultEtcd     = "127.0.0.1:23790"
	DefaultPGs      = 32
	PoolName        = "pool"

	minOSDSize = 128 << 20
	maxOSDs    = 64
)

// Options say what to start. A zero value means what the folder was made with, or the default of a new one.
type Options struct {
	Dir      string
	OSDs     int
	OSDSize  int64 // bytes
	Replicas int
	Image    string // NAME:SIZE; "-" for none
	Etcd     []string
	// Flags are parameters that were given on the command line, by name; they are kept in the folder's configuration.
	Flags   map[string]string
	Version string
	Program string // as it was called, for the lines that are printed
	Say     func(format string, args ...any)
	Errors  io.Writer // what an operator must see of the parts' log; all of it is in the folder
}

// parseImage reads NAME:SIZE.
func parseImage(text string) (name string, size uint64, err error) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return "", 0, &admin.Error{Kind: admin.Usage, What: "--image " + text, Way: "give NAME:SIZE, such as demo:1G"}
	}
	n, err := config.ParseBytes(text[i+1:])
	if err == nil && n <= 0 {
		err = fmt.Errorf("the size is %d", n)
	}
	if err == nil {
		err = cluster.CheckImageName(text[:i])
	}
	if err == nil {
		err = cluster.CheckImageSize(uint64(n))
	}
	if err != nil {
		return "", 0, &admin.Error{Kind: admin.Usage, What: "--image " + text, Err: err, Way: "give NAME:SIZE, such as demo:1G"}
	}
	return text[:i], uint64(n), nil
}

// shape makes the folder's shape agree with the options: a new one gets them, an existing one only ever grows by OSDs.
func shape(d *bootstrap.Dir, o *Options) error {
	s := &d.Shape
	if d.Fresh {
		*s = bootstrap.Shape{Format: 1, OSDs: DefaultOSDs, OSDSize: DefaultOSDSize}
		if o.OSDs != 0 {
			s.OSDs = o.OSDs
		}
		if o.OSDSize != 0 {
			s.OSDSize = o.OSDSize &^ 4095
		}
		s.Replicas = min(s.OSDs, DefaultReplicas)
		if o.Replicas != 0 {
			s.Replicas = o.Replicas
		}
		return checkShape(s)
	}
	grown := *s
	if o.OSDs != 0 {
		if o.OSDs < s.OSDs {
			return refuse("--osds %d: the cluster in %s has %d OSDs, which hold data", "leave --osds out, or give more to grow", o.OSDs, d.Path, s.OSDs)
		}
		grown.OSDs = o.OSDs
	}
	if o.OSDSize != 0 && o.OSDSize&^4095 != s.OSDSize {
		return refuse("--osd-size %s: the disks of the cluster in %s have %s", "leave --osd-size out; more OSDs (--osds) give more space", admin.Size(o.OSDSize), d.Path, admin.Size(s.OSDSize))
	}
	if o.Replicas != 0 && o.Replicas != s.Replicas {
		return refuse("--replicas %d: the first pool of the cluster in %s has %d copies", "leave --replicas out; `holdfast create-pool` makes a pool with another number", o.Replicas, d.Path, s.Replicas)
	}
	if err := checkShape(&grown); err != nil {
		return err
	}
	*s = grown
	return nil
}

func refuse(what, way string, args ...any) error {
	return &admin.Error{Kind: admin.Refused, What: fmt.Sprintf(what, args...), Way: way}
}

func checkShape(s *bootstrap.Shape) error {
	switch {
	case s.OSDs < 1 || s.OSDs > maxOSDs:
		return &admin.Error{Kind: admin.Usage, What: fmt.Sprintf("--osds %d", s.OSDs), Way: fmt.Sprintf("give 1 to %d", maxOSDs)}
	case s.OSDSize < minOSDSize:
		return &admin.Error{Kind: admin.Usage, What: "--osd-size " + admin.Size(s.OSDSize), Way: "give at least " + admin.Size(minOSDSize)}
	case s.Replicas < 1 || s.Replicas > s.OSDs:
		return &admin.Error{Kind: admin.Usage, What: fmt.Sprintf("--replicas %d with %d OSDs", s.Replicas, s.OSDs), Way: "give at least one, and not more than there are OSDs"}
	}
	return nil
}

// configuration merges what was given into the folder's holdfast.conf, which is not written yet, and returns what belongs into config/global.
func configuration(d *bootstrap.Dir, o *Options) (file, global map[string]json.RawMessage, err error) {
	// The flags are checked here, all at once, before anything is written.
	if _, err := config.Load(config.Sources{Flags: o.Flags}); err != nil {
		return nil, nil, &admin.Error{Kind: admin.Usage, What: "wrong configuration", Err: err, Way: "`holdfast help parameters` lists what is allowed"}
	}
	if file, err = d.Configuration(); err != nil {
		return nil, nil, err
	}
	if _, ok := file["etcd_address"]; !ok {
		file["etcd_address"] = list([]string{DefaultEtcd})
		file["allow_legacy_clients"] = json.RawMessage("true") // with legacy_client_networks, which is loopback
	}
	if len(o.Etcd) > 0 {
		file["etcd_address"] = list(o.Etcd)
	}
	global = map[string]json.RawMessage{}
	for _, name := range slices.Sorted(maps.Keys(o.Flags)) {
		p, _ := config.Lookup(name)
		switch {
		case !p.NotFile:
			file[name] = text(o.Flags[name])
		case !p.NotEtcd:
			global[name] = text(o.Flags[name])
		}
	}
	return file, global, nil
}

func text(s string) json.RawMessage {
	b, err := json.Marshal(s)
	if err != nil {
		panic("allinone: a string does not marshal: " + err.Error())
	}
	return b
}

func list(s []string) json.RawMessage {
	b, err := json.Marshal(s)
	if err != nil {
		panic("allinone: a list does not marshal: " + err.Error())
	}
	return b
}
