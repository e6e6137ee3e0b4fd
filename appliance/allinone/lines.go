package allinone

import (
	"fmt"
	"net"
	"strings"

	"holdfast/core/cluster"
)

// Lines are commands to paste: one for each protocol and tool that the cluster can be tried with.
func (c *Cluster) Lines() []string {
	image, iscsiName := c.shownImage(), c.v.String("iscsi_target_prefix")
	lines := []string{
		fmt.Sprintf("# cluster in %s: %d OSDs, %d copies, etcd at %s", c.dir.Path, c.dir.Shape.OSDs, c.dir.Shape.Replicas, strings.Join(c.v.List("etcd_address"), ",")),
		"export HOLDFAST_CONFIG=" + c.dir.ConfigFile(),
		c.o.Program + " status",
		c.o.Program + " create disk1 --size 10G",
	}
	for _, a := range c.v.List("nbd_address") {
		url := "nbd://" + a + "/" + image
		if path, ok := strings.CutPrefix(a, "unix:"); ok {
			url = "nbd+unix:///" + image + "?socket=" + path
		}
		lines = append(lines, "# NBD", "nbdinfo '"+url+"'", "qemu-img info '"+url+"'")
	}
	for _, a := range c.v.List("nfs_address") {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			continue
		}
		lines = append(lines, "# NFS",
			fmt.Sprintf("nfs-ls 'nfs://%s/?nfsport=%s&mountport=%s&version=3'", bracket(host), port, port),
			fmt.Sprintf("mount -t nfs -o vers=3,proto=tcp,mountproto=tcp,port=%s,mountport=%s,nolock %s:/ /mnt", port, port, bracket(host)))
	}
	for _, a := range c.v.List("iscsi_address") {
		lines = append(lines, "# iSCSI",
			fmt.Sprintf("iscsi-ls -s iscsi://%s", a),
			fmt.Sprintf("qemu-img info 'iscsi://%s/%s:%s/0'", a, iscsiName, image),
			fmt.Sprintf("iscsiadm -m discovery -t sendtargets -p %s && iscsiadm -m node -T %s:%s -p %s --login", a, iscsiName, image, a))
	}
	return lines
}

func bracket(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// shownImage is the image in the printed lines: the one that was asked for, else the first that there is.
func (c *Cluster) shownImage() string {
	if name, _, err := parseImage(c.o.Image); err == nil {
		return name
	}
	ctx, cancel := stopContext()
	defer cancel()
	if s, err := c.link.Snapshot(ctx, cluster.SectionInodes); err == nil {
		if _, ok := s.Image("demo"); ok {
			return "demo"
		}
		for name := range s.InodeByName.All() {
			return name
		}
	}
	return "IMAGE"
}
