package rooms

// rule says what one room may import of this module and of others; the standard library is free, and so is whatever lies in the room itself.
type rule struct {
	room   string   // folder; the longest one that fits a package rules it
	may    []string // folders of this module, with all below
	others []string // modules, with all below
	why    string   // why nothing else: printed with a forbidden edge
}

var (
	loops  = []string{"core/loop"}
	daemon = []string{"core", "osd", "monitor", "appliance/gateway"}
	unix   = []string{"golang.org/x/sys"}
)

// core lists the folders of core that are shared by what is above it.
func core(names ...string) (out []string) {
	for _, n := range names {
		out = append(out, "core/"+n)
	}
	return out
}

func with(lists ...[]string) (out []string) {
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

// rules is the plan of the house. Imports only go down.
var rules = []rule{
	{"core/planted", nil, nil, "it names bugs for tests: everything may ask it, and it is nothing without its build tag"},
	{"core/layout", nil, nil, "layout is pure arithmetic that everybody shares"},
	{"core/config", nil, nil, "the table of parameters must be readable without the rest"},
	{"core/loop", nil, unix, "the loop is below everything: what runs on it must not be known to it"},
	{"core/registry", core("layout", "loop"), nil, "the registry is a small interface that the simulator implements, too"},
	{"core/registry/etcd", core("layout", "loop", "registry"), []string{"go.etcd.io/etcd", "go.uber.org/zap", "google.golang.org/grpc"}, "only this room knows etcd's client"},
	{"core/registry/registrytest", core("layout", "loop", "registry"), unix, "the suite runs against every implementation"},
	{"core/cluster", core("layout", "loop", "registry", "config"), nil, "keys are values: nobody is connected to here"},
	{"core/wire", core("layout"), nil, "the codec is pure"},
	{"core/peer", core("layout", "loop", "wire"), nil, "connections know packets, not what they mean"},
	{"core/ec", nil, []string{"github.com/klauspost/reedsolomon"}, "erasure codes are arithmetic"},
	{"core/sim", core("loop", "registry"), nil, "the simulator stands behind loop and registry; it must not know what runs in it"},
	{"core/client", core("layout", "loop", "registry", "cluster", "wire", "peer", "planted"), nil, "image I/O knows no front end and no OSD's inside"},
	{"core/client/clienttest", core("layout", "loop", "registry", "cluster", "wire", "peer", "client", "sim"), nil, "what tests of clients share"},
	{"core/blocking", core("layout", "loop", "registry", "cluster", "client"), nil, "it only wraps the client"},
	{"core/images", core("layout", "loop", "registry", "cluster", "client"), nil, "administration of images is built on image I/O"},
	{"core/admin", core("layout", "loop", "registry", "cluster", "config", "client", "images"), nil, "what operators see does not depend on how it is shown"},

	{"osd/store", core("layout", "loop", "planted"), unix, "the store is one disk: it knows no network and no cluster"},
	{"osd/peering", core("layout", "planted"), nil, "the state machine is pure, so that a thousand failures run in a second"},
	{"osd/pg", with(core("layout", "loop", "planted"), []string{"osd/store", "osd/peering"}), nil, "a PG in memory asks nobody"},
	{"osd/secondary", with(core("layout", "loop", "wire", "peer", "planted"), []string{"osd/store", "osd/peering", "osd/pg"}), nil, "a secondary executes what a primary orders, and knows no primary"},
	{"osd/primary", with(core("layout", "loop", "wire", "peer", "cluster", "registry", "ec", "planted"), []string{"osd/store", "osd/peering", "osd/pg", "osd/secondary"}), nil, "a primary is driven by the daemon"},
	{"osd/recovery", with(core("layout", "loop"), []string{"osd/primary", "osd/pg"}), nil, "recovery produces operations for the primary, nothing else"},
	{"osd/scrub", with(core("layout", "loop", "wire"), []string{"osd/primary", "osd/pg"}), nil, "scrub produces operations for the primary, nothing else"},
	{"osd/disk", with(core("layout", "loop", "config"), []string{"osd/store"}), unix, "partitions and superblocks need no running OSD"},
	{"osd", with(core("layout", "loop", "wire", "peer", "cluster", "registry", "config", "ec", "planted"), []string{"osd"}), nil, "the OSD is a server: clients, images and front ends are above it"},

	{"monitor/placement", core("layout"), nil, "the optimizer is pure"},
	{"monitor", with(core("layout", "loop", "registry", "cluster", "config"), []string{"monitor/placement"}), nil, "the monitor speaks through the registry alone"},

	{"frontends/volume", loops, nil, "the seam is shared by everything on both sides"},
	{"frontends/nbd", with(loops, []string{"frontends/volume"}), nil, "protocol servers know nothing of clusters, nor of each other"},
	{"frontends/nfs", with(loops, []string{"frontends/volume"}), nil, "protocol servers know nothing of clusters, nor of each other"},
	{"frontends/iscsi", with(loops, []string{"frontends/volume"}), nil, "protocol servers know nothing of clusters, nor of each other"},

	{"appliance/exports", with([]string{"core", "frontends/volume"}), nil, "export configuration serves all protocols"},
	{"appliance/reservations", []string{"core"}, nil, "a step machine over the registry"},
	{"appliance/files", with([]string{"core", "appliance/exports", "frontends/volume", "frontends/nfs"}), nil, "the file tree serves NFS from images"},
	{"appliance/address", []string{"core"}, unix, "floating addresses know no protocol"},
	{"appliance/gateway", []string{"core", "frontends", "appliance/exports", "appliance/reservations", "appliance/files", "appliance/address"}, unix, "a gateway is a client of the cluster: it knows no OSD's inside"},
	{"appliance/etcdsnapshot", core("layout", "loop", "registry", "cluster"), nil, "a snapshot is keys and a file: who takes it, and when, is decided above"},
	{"appliance/daemon", with(daemon, []string{"appliance/etcdsnapshot"}), unix, "it runs one part of a cluster and decides nothing"},
	{"appliance/bootstrap", []string{"core", "osd/store", "osd/disk", "appliance/daemon"}, unix, "making a cluster needs disks and keys, not its running parts"},
	{"appliance/allinone", with(daemon, []string{"appliance/bootstrap", "appliance/daemon"}), []string{"go.etcd.io/etcd", "go.uber.org/zap"}, "up wires parts; only it holds an etcd server"},
	{"appliance/console", []string{"core", "appliance/gateway"}, []string{"github.com/prometheus/client_golang"}, "the console shows what core/admin says"},
	{"appliance/cli", with(daemon, []string{"appliance"}), []string{"github.com/spf13", "golang.org/x/sys"}, "the command line formats, it does not decide"},
	{"appliance/holdfast", []string{"appliance/cli"}, nil, "main only starts the command line"},

	{"tests/crash", with(core("layout", "loop", "sim"), []string{"osd/store"}), nil, "the crash tester knows the store alone, and only what everybody may"},
	{"tests/scenarios", with(core("client", "config", "layout", "loop"), []string{"appliance/daemon", "tests/stand"}), nil, "scenarios see a cluster as its users do: through programs, protocols and the client"},
	{"tests", []string{"core", "osd", "monitor", "frontends", "appliance", "tests"}, []string{"golang.org/x/sys", "github.com", "go.etcd.io/etcd"}, ""},
}

// pure are the rooms that take values and return values: no I/O, no clock, no goroutines of their own, so not these packages of the standard library.
var pure = []string{"core/layout", "core/wire", "core/ec", "osd/peering", "monitor/placement", "frontends/nfs/xdr"}

var impure = []string{"os", "net", "sync", "context", "syscall", "math/rand", "log/slog", "log"}
