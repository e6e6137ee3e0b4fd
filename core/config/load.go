package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

const masked = "********"

// Sources are what Load reads. Each may be empty.
type Sources struct {
	Flags    map[string]string          // by name, only those that were given
	Environ  []string                   // NAME=VALUE, as os.Environ returns; other programs' variables are skipped
	Etcd     map[string]json.RawMessage // config/global
	File     []byte                     // JSON object
	FileName string                     // for messages
}

// Fault is one wrong value.
type Fault struct {
	Source Source
	Where  string // "--bind_port", "HOLDFAST_BIND_PORT", "etcd config/global bind_port", "/etc/holdfast/holdfast.conf bind_port"
	Err    error
}

func (f *Fault) Error() string { return f.Where + " " + f.Err.Error() }

// Unwrap is the reason.
func (f *Fault) Unwrap() error { return f.Err }

// Faults is every wrong value of all sources.
type Faults []*Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, one := range f {
		lines[i] = one.Error()
	}
	return "configuration: " + strings.Join(lines, "; ")
}

// Values is the effective configuration. It does not change.
type Values struct {
	sources  Sources
	set      map[string]setting
	Warnings []string // what was read and has no effect here
}

type setting struct {
	value any
	from  Source
}

// ReadFile reads the configuration file. A file that does not exist is an empty one, unless it was asked for.
func ReadFile(path string, asked bool) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && !asked {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	return b, nil
}

// Load reads all sources. The error is Faults.
func Load(s Sources) (*Values, error) {
	v := &Values{sources: s, set: make(map[string]setting, len(params))}
	var faults Faults
	for _, p := range params {
		d, err := p.parse(p.Default)
		if err != nil {
			panic(fmt.Sprintf("config: default of %s %v", p.Name, err))
		}
		v.set[p.Name] = setting{d, FromDefault}
	}
	faults = v.file(faults)
	for _, name := range slices.Sorted(maps.Keys(s.Etcd)) {
		faults = v.fromJSON(faults, FromEtcd, "etcd config/global "+name, name, s.Etcd[name])
	}
	faults = v.environment(faults)
	for _, name := range slices.Sorted(maps.Keys(s.Flags)) {
		faults = v.fromText(faults, FromFlag, "--"+name, byName[name], s.Flags[name])
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return v, nil
}

// WithEtcd is the configuration with another config/global.
func (v *Values) WithEtcd(global map[string]json.RawMessage) (*Values, error) {
	s := v.sources
	s.Etcd = global
	return Load(s)
}

func (v *Values) file(faults Faults) Faults {
	if len(v.sources.File) == 0 {
		return faults
	}
	name := v.sources.FileName
	if name == "" {
		name = "configuration file"
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(v.sources.File, &all); err != nil {
		return append(faults, &Fault{FromFile, name, fmt.Errorf("is not a JSON object: %w", err)})
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		faults = v.fromJSON(faults, FromFile, name+" "+key, key, all[key])
	}
	return faults
}

func (v *Values) environment(faults Faults) Faults {
	variables := make(map[string]*Param, len(params))
	for _, p := range params {
		variables[p.Environment()] = p
	}
	environ := slices.Clone(v.sources.Environ)
	slices.Sort(environ)
	for _, line := range environ {
		name, value, _ := strings.Cut(line, "=")
		if strings.HasPrefix(name, envPrefix) && !strings.HasPrefix(name, envPrefix+"TEST_") {
			faults = v.fromText(faults, FromEnvironment, name, variables[name], value)
		}
	}
	return faults
}

// fromJSON takes one value of the file or of etcd.
func (v *Values) fromJSON(faults Faults, from Source, where, name string, raw json.RawMessage) Faults {
	p, ok := byName[name]
	switch {
	case !ok && slices.Contains(foreign, name):
		v.Warnings = append(v.Warnings, where+" has no effect here")
		return faults
	case !ok:
		return append(faults, &Fault{from, where, unknown(name)})
	case from == FromFile && p.NotFile:
		v.Warnings = append(v.Warnings, where+" is ignored: it belongs to one daemon or disk; give it as --"+p.Flag()+", or in etcd where that is allowed")
		return faults
	case from == FromEtcd && p.NotEtcd:
		return append(faults, &Fault{from, where, errors.New("may not be set in etcd; use the configuration file, " + p.Environment() + " or --" + p.Flag())})
	}
	value, err := p.parseJSON(raw)
	return v.take(faults, from, where, p, value, err)
}

// fromText takes one flag or variable; p is nil when there is no such parameter.
func (v *Values) fromText(faults Faults, from Source, where string, p *Param, text string) Faults {
	if p == nil {
		name := strings.ToLower(strings.TrimPrefix(strings.TrimPrefix(where, "--"), envPrefix))
		return append(faults, &Fault{from, where, unknown(name)})
	}
	value, err := p.parse(text)
	return v.take(faults, from, where, p, value, err)
}

func (v *Values) take(faults Faults, from Source, where string, p *Param, value any, err error) Faults {
	if err != nil {
		return append(faults, &Fault{from, where, err})
	}
	v.set[p.Name] = setting{value, from}
	return faults
}

// unknown says that there is no such parameter, and which one may have been meant.
func unknown(name string) error {
	best, least := "", 3
	for _, p := range params {
		if d := distance(name, p.Name); d < least {
			best, least = p.Name, d
		}
	}
	if best != "" {
		return fmt.Errorf("is not a parameter; did you mean %s?", best)
	}
	return errors.New("is not a parameter; docs/parameters.md lists them")
}

// distance is the number of letters to insert, remove or replace to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// get is the value of a declared parameter; another name is a mistake of the caller.
func get[T any](v *Values, name string) T {
	s, ok := v.set[name]
	if !ok {
		panic("config: there is no parameter " + name)
	}
	value, ok := s.value.(T)
	if !ok {
		panic(fmt.Sprintf("config: parameter %s is a %T", name, s.value))
	}
	return value
}

// Bool is a Bool parameter's value.
func (v *Values) Bool(name string) bool { return get[bool](v, name) }

// Int is an Int parameter's value.
func (v *Values) Int(name string) int64 { return get[int64](v, name) }

// Float is a Float parameter's value.
func (v *Values) Float(name string) float64 { return get[float64](v, name) }

// String is a String parameter's value.
func (v *Values) String(name string) string { return get[string](v, name) }

// Duration is a Duration parameter's value.
func (v *Values) Duration(name string) time.Duration { return get[time.Duration](v, name) }

// Bytes is a Bytes parameter's value.
func (v *Values) Bytes(name string) int64 { return get[int64](v, name) }

// List is a List parameter's value, which must not be changed.
func (v *Values) List(name string) []string { return get[[]string](v, name) }

// Networks is a Networks parameter's value, which must not be changed.
func (v *Values) Networks(name string) []netip.Prefix { return get[[]netip.Prefix](v, name) }

// From is where a parameter's value came from.
func (v *Values) From(name string) Source { return v.set[name].from }

// Effective is one line of the effective configuration.
type Effective struct {
	Name, Value string // secrets are masked
	From        Source
}

// Effective lists the parameters that a component uses, in the order of the reference.
func (v *Values) Effective(c Component) []Effective {
	var out []Effective
	for _, p := range params {
		if p.Used&c == 0 {
			continue
		}
		s := v.set[p.Name]
		out = append(out, Effective{p.Name, p.shown(s.value), s.from})
	}
	return out
}

// Changed compares two configurations: the parameters of c that differ, those that take effect at once and those that wait for a restart.
func Changed(old, next *Values, c Component) (online, restart []string) {
	for _, p := range params {
		if p.Used&c == 0 || p.format(old.set[p.Name].value) == p.format(next.set[p.Name].value) {
			continue
		}
		if p.Effect == Online {
			online = append(online, p.Name)
		} else {
			restart = append(restart, p.Name)
		}
	}
	return online, restart
}
