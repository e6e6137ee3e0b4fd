package allinone

import (
	"context"
	"os"

	"holdfast/appliance/bootstrap"
	"holdfast/core/admin"
	"holdfast/core/config"
)

// WithEtcd runs the etcd of a folder's cluster alone while f runs, with the folder's configuration. The cluster must not run.
func WithEtcd(ctx context.Context, path string, f func(*config.Values) error) error {
	none := &admin.Error{Kind: admin.NotFound, What: "--dir " + path + " holds no cluster", Way: "give the folder of `holdfast up`"}
	if _, err := os.Stat(path); err != nil { // OpenDir would make it
		return none
	}
	d, err := bootstrap.OpenDir(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if d.Fresh {
		return none
	}
	file, err := d.Configuration()
	if err != nil {
		return err
	}
	v, err := loadFile(file, d.ConfigFile())
	if err != nil {
		return err
	}
	e, err := startEtcd(ctx, d.File("etcd"), d.File("etcd.log"), v.List("etcd_address"))
	if err != nil {
		return &admin.Error{Kind: admin.Failed, What: "the embedded etcd does not start", Err: err, Way: "see " + d.File("etcd.log") + "; if its database is damaged, move the folder " + d.File("etcd") + " away"}
	}
	defer e.close()
	return f(v)
}
