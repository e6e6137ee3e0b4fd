// Package config declares every parameter of Holdfast once: name, type, unit, default, bounds, help, when a change takes effect, and where it may come from.
//
// Daemons and the CLI call Load with their sources; a flag wins over the environment (HOLDFAST_<NAME>), that over config/global in etcd, that over the configuration
// file, that over the default. Every fault of every source is named at once. A Live keeps them resolved while a daemon runs. Names, meanings and units are Vitastor's where it has the parameter. docs/parameters.md is
// generated from the table here.
package config

import (
	"fmt"
	"strings"
)

// Type is what values a parameter has.
type Type uint8

// The types, and what Values returns for each.
const (
	Bool     Type = iota + 1 // bool
	Int                      // int64
	Float                    // float64
	String                   // string
	Duration                 // time.Duration; a bare number counts the parameter's Unit
	Bytes                    // int64; K, M, G and T are powers of 1024
	List                     // []string; commas separate
	Networks                 // []netip.Prefix; a bare address is one host
)

func (t Type) String() string {
	return [...]string{"?", "true or false", "integer", "number", "text", "duration", "bytes", "list", "list of networks"}[t]
}

// Effect is when a change takes effect.
type Effect uint8

// The effects.
const (
	AtStart  Effect = iota + 1 // when the daemon starts again
	Online                     // at once, when it is changed in etcd, or in the file and the daemon is told so (SIGHUP)
	AtFormat                   // only for disks that are formatted, or pools that are made, afterwards
)

func (e Effect) String() string { return [...]string{"?", "start", "online", "format"}[e] }

// Component is who uses a parameter.
type Component uint8

// The components.
const (
	OSD Component = 1 << iota
	Monitor
	Gateway
	Client // everything that reads and writes images: gateways and the CLI
	All    = OSD | Monitor | Gateway | Client
)

func (c Component) String() string {
	if c == All {
		return "all"
	}
	var names []string
	for i, name := range [...]string{"osd", "monitor", "gateway", "client"} {
		if c&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// Source is where a value came from, the weakest first.
type Source uint8

// The sources.
const (
	FromDefault Source = iota
	FromFile
	FromEtcd
	FromEnvironment
	FromFlag
	sourceCount
)

func (s Source) String() string {
	return [...]string{"default", "file", "etcd", "environment", "flag"}[s]
}

// Param is one parameter.
type Param struct {
	Name    string
	Group   string // heading in the reference
	Type    Type
	Unit    string // of Duration: us, ms or s
	Default string // as it would be written; "" of a List is the empty list
	Min     float64
	Max     float64 // of numbers, durations (in Unit) and bytes; no bounds when both are 0
	Choices []string
	Effect  Effect
	Used    Component
	Help    string
	Secret  bool // masked in listings
	NotFile bool // ignored, with a warning, in the configuration file: it belongs to one disk or one daemon
	NotEtcd bool // refused in config/global
	Env     string
}

// Environment is the parameter's variable.
func (p *Param) Environment() string {
	if p.Env != "" {
		return p.Env
	}
	return envPrefix + strings.ToUpper(p.Name)
}

const envPrefix = "HOLDFAST_"

// Flag is the parameter's flag, without dashes.
func (p *Param) Flag() string { return p.Name }

// Want describes the values that are allowed.
func (p *Param) Want() string {
	want := p.Type.String()
	switch {
	case len(p.Choices) > 0:
		want = strings.Join(p.Choices, ", ")
	case p.Type == Duration:
		want = "a number of " + p.Unit + ", or a duration such as 500ms, 2s, 1h, 30d"
	case p.Type == Bytes:
		want = "a number of bytes, or one with K, M, G or T"
	}
	if p.bounded() {
		want += fmt.Sprintf(" from %s to %s", p.bound(p.Min), p.bound(p.Max))
	}
	return want
}

func (p *Param) bounded() bool { return p.Min != 0 || p.Max != 0 }

func (p *Param) bound(v float64) string {
	switch p.Type {
	case Bytes:
		return formatBytes(int64(v))
	case Duration:
		return fmt.Sprintf("%g %s", v, p.Unit)
	}
	return fmt.Sprintf("%.10g", v)
}

// Params is every parameter, in the order of the reference.
func Params() []*Param { return params }

// Lookup finds a parameter by its name.
func Lookup(name string) (*Param, bool) {
	p, ok := byName[name]
	return p, ok
}

var byName = func() map[string]*Param {
	m := make(map[string]*Param, len(params))
	for _, p := range params {
		if m[p.Name] != nil {
			panic("config: parameter " + p.Name + " is declared twice")
		}
		m[p.Name] = p
	}
	return m
}()
