package config

import (
	"fmt"
	"strings"
)

// Reference is docs/parameters.md.
func Reference() string {
	var b strings.Builder
	b.WriteString(`# Parameters

Generated from core/config; do not edit. A value comes from, strongest first: a flag (` + "`--NAME VALUE`" + `), the environment (` + "`HOLDFAST_NAME`" + `), config/global in etcd, the
configuration file (JSON), the default. Durations are numbers of the unit shown, or text such as "500ms"; sizes are bytes, or text with K, M, G or T. Unknown and bad values are refused,
all at once. "online" takes effect when it is changed in etcd, or in the file and the daemon gets SIGHUP; "start" when the daemon starts again, "format" only for what is formatted or
made afterwards. While a daemon runs, a wrong value is refused and the one before stays.
`)
	group := ""
	for _, p := range params {
		if p.Group != group {
			group = p.Group
			fmt.Fprintf(&b, "\n## %s\n\n| parameter | default | values | effect | used by | meaning |\n|---|---|---|---|---|---|\n", group)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s%s |\n", p.Name, p.shownDefault(), p.Want(), p.Effect, p.Used, p.Help, p.limits())
	}
	return b.String()
}

func (p *Param) shownDefault() string {
	switch {
	case p.Default == "":
		return "none"
	case p.Type == Duration:
		return p.Default + " " + p.Unit
	}
	return "`" + p.Default + "`"
}

// limits says where a parameter may not come from.
func (p *Param) limits() string {
	switch {
	case p.NotFile && p.NotEtcd:
		return " Only as a flag or " + p.Environment() + "."
	case p.NotFile:
		return " Not in the configuration file."
	case p.NotEtcd:
		return " Not in etcd."
	}
	return ""
}

// Sample is a configuration file to start from: what a host needs, and the defaults of what is often changed.
func Sample() string {
	return `{
	"etcd_address": ["10.0.0.1:2379", "10.0.0.2:2379", "10.0.0.3:2379"],
	"etcd_prefix": "/vitastor",
	"osd_network": ["10.0.0.0/8"],
	"cluster_key_file": "/etc/holdfast/cluster.key",
	"log_level": 0
}
`
}
