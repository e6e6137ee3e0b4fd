package cluster

import "holdfast/core/registry"

// Master is mon/master and mon/member/<lease>.
type Master struct {
	Meta     `json:"-"`
	IP       Strings `json:"ip,omitempty"`
	Hostname string  `json:"hostname"`
	ID       Number  `json:"id,omitempty"` // lease, in mon/master

	Snapshot *EtcdSnapshot `json:"holdfast_etcd_snapshot,omitempty"` // ours, in mon/member
}

// EtcdSnapshot is what a monitor says of the snapshots of etcd that it writes.
type EtcdSnapshot struct {
	Host     string            `json:"host"`
	Time     int64             `json:"time,omitempty"` // of the newest good one, Unix time, seconds; 0: none yet
	File     string            `json:"file,omitempty"`
	Revision registry.Revision `json:"revision,omitempty"`
	Keys     int               `json:"keys,omitempty"`
	Error    string            `json:"error,omitempty"` // why the last try failed
}

// SumStats are sums and rates, written as strings.
type SumStats struct {
	Count BigNumber `json:"count"`
	Usec  BigNumber `json:"usec"`
	Bytes BigNumber `json:"bytes"`
	Bps   BigNumber `json:"bps"`
	Iops  BigNumber `json:"iops"`
	Lat   BigNumber `json:"lat"` // microseconds
}

// Counts are objects or bytes by their state.
type Counts struct {
	Object     BigNumber `json:"object"`
	Clean      BigNumber `json:"clean"`
	Misplaced  BigNumber `json:"misplaced"`
	Degraded   BigNumber `json:"degraded"`
	Incomplete BigNumber `json:"incomplete"`
}

// Stats is stats: the whole cluster's sums.
type Stats struct {
	Meta          `json:"-"`
	OpStats       map[string]SumStats `json:"op_stats,omitempty"`
	SubopStats    map[string]SumStats `json:"subop_stats,omitempty"`
	RecoveryStats map[string]SumStats `json:"recovery_stats,omitempty"`
	ObjectCounts  Counts              `json:"object_counts"`
	ObjectBytes   Counts              `json:"object_bytes"`
}

// InodeStats is inode/stats/<pool>/<inode>.
type InodeStats struct {
	Meta    `json:"-"`
	RawUsed BigNumber `json:"raw_used"` // bytes of all copies and chunks
	Read    SumStats  `json:"read"`
	Write   SumStats  `json:"write"`
	Delete  SumStats  `json:"delete"`
}

// PoolStats is pool/stats/<pool>. A TB is 2^40 bytes.
type PoolStats struct {
	Meta            `json:"-"`
	UsedRawTB       Float  `json:"used_raw_tb"`
	TotalRawTB      Float  `json:"total_raw_tb"`
	PGRealSize      Number `json:"pg_real_size"`
	RawToUsable     Float  `json:"raw_to_usable"`
	SpaceEfficiency Float  `json:"space_efficiency"`
}
