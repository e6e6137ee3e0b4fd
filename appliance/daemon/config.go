package daemon

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"holdfast/core/admin"
	"holdfast/core/config"
	"holdfast/core/loop"
	"holdfast/core/registry/etcd"
)

var errEnded = errors.New("the event loop has ended")

// MaxInstance bounds the ids that Instance draws: they are the upper 40 bits of session ids.
const MaxInstance = 1<<40 - 1

// Instance draws the id of one run of a process, which is not used again.
func Instance() uint64 {
	for {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			panic("daemon: the system gives no random numbers: " + err.Error())
		}
		if n := binary.LittleEndian.Uint64(b[:]) & MaxInstance; n != 0 {
			return n
		}
	}
}

// LoadConfig reads the configuration of this process: flags, environment and file, without etcd's part. flags are by name, only those that were given.
func LoadConfig(flags map[string]string) (*config.Values, error) {
	p, _ := config.Lookup("config_path")
	path, asked := flags["config_path"]
	if !asked {
		path, asked = os.LookupEnv(p.Environment())
	}
	if !asked {
		path = p.Default
	}
	file, err := config.ReadFile(path, asked)
	if err != nil {
		return nil, &admin.Error{Kind: admin.Usage, What: "cannot read the configuration", Err: err, Way: "give --config DIR/holdfast.conf of a cluster"}
	}
	v, err := config.Load(config.Sources{Flags: flags, Environ: os.Environ(), File: file, FileName: path})
	if err != nil {
		return nil, &admin.Error{Kind: admin.Usage, Err: err, What: "wrong configuration", Way: "`holdfast help parameters` lists what is allowed"}
	}
	return v, nil
}

// Key reads the cluster key, nil when none is configured. A key that others may read is refused.
func Key(v *config.Values) ([]byte, error) {
	path := v.String("cluster_key_file")
	if path == "" {
		return nil, nil
	}
	st, err := os.Stat(path)
	if err != nil {
		way := "copy it from another host of the cluster"
		if errors.Is(err, fs.ErrPermission) {
			way = "run as a user who may read it"
		}
		return nil, &admin.Error{Kind: admin.Usage, What: "cannot read the cluster key (cluster_key_file)", Err: err, Way: way}
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, &admin.Error{Kind: admin.Refused, What: fmt.Sprintf("cluster key %s can be read by other users (mode %04o)", path, st.Mode().Perm()), Way: "chmod 600 " + path}
	}
	key, err := os.ReadFile(path)
	if err != nil {
		return nil, &admin.Error{Kind: admin.Usage, What: "cannot read the cluster key (cluster_key_file)", Err: err, Way: "run as a user who may read it"}
	}
	if len(key) < 16 {
		return nil, &admin.Error{Kind: admin.Refused, What: fmt.Sprintf("cluster key %s has only %d bytes", path, len(key)), Way: "copy the right one from another host of the cluster"}
	}
	return key, nil
}

// OpenRegistry connects l to the etcd that is configured.
func OpenRegistry(l loop.Loop, v *config.Values, log *slog.Logger) (*etcd.Registry, error) {
	if len(v.List("etcd_address")) == 0 {
		return nil, noCluster()
	}
	t := etcdTimes(v)
	o := etcd.Options{
		Endpoints: v.List("etcd_address"), Prefix: v.String("etcd_prefix"), QuickTimeout: t.QuickTimeout, SlowTimeout: t.SlowTimeout, MaxAttempts: t.MaxAttempts, Progress: t.Progress,
		User: v.String("etcd_user"), Password: v.String("etcd_password"), Log: log,
	}
	if ca := v.String("etcd_ca"); ca != "" {
		var err error
		if o.TLS, err = tlsConfig(ca, v.String("etcd_cert"), v.String("etcd_key")); err != nil {
			return nil, &admin.Error{Kind: admin.Usage, What: "TLS to etcd (etcd_ca, etcd_cert, etcd_key)", Err: err}
		}
	}
	return etcd.Open(l, o)
}

func tlsConfig(ca, cert, key string) (*tls.Config, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", ca)
	}
	if cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// Logger makes the log of a process, on standard error, at the configured level, which may be changed (FollowLevel).
func Logger(v *config.Values) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(Level(v))
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})), level
}

// Level is what log_level means.
func Level(v *config.Values) slog.Level {
	switch n := v.Int("log_level"); {
	case n <= -2:
		return slog.LevelError
	case n == -1:
		return slog.LevelWarn
	case n >= 1:
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// Host is the name of this host as daemons publish it.
func Host() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "localhost"
	}
	return name
}
