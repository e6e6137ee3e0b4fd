package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/core/admin"
	"holdfast/core/cluster"
	"holdfast/core/config"
	"holdfast/osd/secondary"
)

// family runs a shell script as the child, and notes the deaths that are reported.
type family struct {
	*Parent
	mu    sync.Mutex
	died  []secondary.Holder // guarded by mu
	noted chan struct{}
}

func newFamily(t *testing.T, script string) *family {
	f := &family{noted: make(chan struct{}, 100)}
	f.Parent = &Parent{Name: "OSD 7", Command: []string{"/bin/sh", "-c", script}, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Report: func(_ context.Context, h secondary.Holder) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.died = append(f.died, h)
		f.noted <- struct{}{}
		return nil
	}}
	return f
}

const announce = `echo '{"osd":7,"instance":%d,"store":"000102030405060708090a0b0c0d0e0f"}' >&3; `

func TestDeathOfTheChildIsReportedAndItStartsAgain(t *testing.T) {
	marks := filepath.Join(t.TempDir(), "marks")
	f := newFamily(t, fmt.Sprintf(announce, 5)+"echo x >> "+marks+"; kill -9 $$")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := f.Run(ctx)
		ended <- err
	}()
	for range 2 {
		select {
		case <-f.noted:
		case <-time.After(10 * time.Second):
			t.Fatal("no report")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if h := f.died[0]; h.OSD != 7 || h.Instance != 5 || h.Store[1] != 1 {
		t.Errorf("reported %+v", h)
	}
	if b, err := os.ReadFile(marks); err != nil || len(b) < 4 {
		t.Errorf("started %d times, %v", len(b)/2, err)
	}
}

func TestChildThatEndsByItselfIsNotStartedAgain(t *testing.T) {
	for _, code := range []int{0, int(admin.Usage), int(admin.NotFound), int(admin.Refused)} {
		f := newFamily(t, fmt.Sprintf("exit %d", code))
		if got, err := f.Run(context.Background()); err != nil || got != code {
			t.Errorf("Run = %d, %v, want %d", got, err, code)
		}
		if len(f.died) != 0 {
			t.Errorf("code %d was reported as a death: %v", code, f.died)
		}
	}
}

// The disk, or the port, of a child that was killed may be in use for a moment: who is refused it then is started again.
func TestChildThatIsRefusedWhatAnEarlierOneHeldIsStartedAgain(t *testing.T) {
	marks := filepath.Join(t.TempDir(), "marks")
	f := newFamily(t, "echo x >> "+marks+"; case $(wc -l < "+marks+") in 1) "+fmt.Sprintf(announce, 5)+"kill -9 $$;; 2) exit 4;; 3) exit 0;; esac")
	if code, err := f.Run(t.Context()); err != nil || code != 0 {
		t.Errorf("Run = %d, %v, want 0 of the third", code, err)
	}
	if len(f.died) != 1 {
		t.Errorf("reported %v, want the first", f.died)
	}
}

// What must not be started again ends the parent, too, although the child had run; its death and why it ended are told.
func TestHaltedChildIsReportedAndNotStartedAgain(t *testing.T) {
	f := newFamily(t, fmt.Sprintf(announce, 5)+`echo '{"failure":{"reason":"the disk has failed","host":"h","device":"/dev/x","errno":5}}' >&3; exit 6`)
	var told []*cluster.OSDFailure
	f.Failed = func(_ context.Context, x *cluster.OSDFailure) error {
		if len(f.died) != 1 {
			t.Error("the failure was told before the death")
		}
		told = append(told, x)
		return nil
	}
	if code, err := f.Run(t.Context()); err != nil || code != int(admin.Halted) {
		t.Errorf("Run = %d, %v, want %d", code, err, admin.Halted)
	}
	if len(f.died) != 1 || len(told) != 1 || told[0].Reason != "the disk has failed" || told[0].Errno != 5 {
		t.Errorf("deaths %v, failures %+v", f.died, told)
	}
}

func TestChildThatNeverSaidWhoItIsIsNotReported(t *testing.T) {
	f := newFamily(t, "sleep 0.05; kill -9 $$")
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := f.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if len(f.died) != 0 {
		t.Errorf("reported %v", f.died)
	}
}

// noted waits until the child has written this into a file, and nothing else.
func noted(t *testing.T, path, want string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		b, _ := os.ReadFile(path)
		if string(b) == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the child has noted %q, want %q", b, want)
		}
	}
}

func TestParentStopsItsChildInOrder(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "marks")
	f := newFamily(t, fmt.Sprintf(announce, 5)+"trap 'echo stopped >> "+mark+"; exit 0' TERM; echo up >> "+mark+"; while :; do sleep 0.02; done")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan int, 1)
	go func() {
		code, err := f.Run(ctx)
		if err != nil {
			t.Error(err)
		}
		ended <- code
	}()
	noted(t, mark, "up\n")
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("Run = %d", code)
	}
	noted(t, mark, "up\nstopped\n")
}

func TestParentPassesHangupOn(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "marks")
	f := newFamily(t, "trap 'echo read >> "+mark+"' HUP; trap 'exit 0' TERM; echo up >> "+mark+"; while :; do sleep 0.02; done")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan int, 1)
	go func() {
		code, _ := f.Run(ctx)
		ended <- code
	}()
	noted(t, mark, "up\n")
	for want := "up\n"; len(want) < 12; {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		want += "read\n"
		noted(t, mark, want)
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("Run = %d", code)
	}
}

func TestListeningAddresses(t *testing.T) {
	local := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("::1")}
	for _, c := range []struct {
		nets string
		want []string
	}{
		{"", []string{"10.1.0.5", "192.0.2.7"}}, {"10.0.0.0/8", []string{"10.1.0.5"}}, {"172.16.0.0/12", nil}, {"127.0.0.0/8", []string{"127.0.0.1"}},
	} {
		var nets []netip.Prefix
		if c.nets != "" {
			nets = append(nets, netip.MustParsePrefix(c.nets))
		}
		if got := inNetworks(local, nets); !slices.Equal(got, c.want) {
			t.Errorf("inNetworks(%s) = %v, want %v", c.nets, got, c.want)
		}
	}
	if got := inNetworks(local[:1], nil); !slices.Equal(got, []string{"127.0.0.1"}) {
		t.Errorf("only loopback: %v", got)
	}
}

func TestKeyThatOthersCanReadIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	load := func() error {
		v, err := config.Load(config.Sources{Flags: map[string]string{"cluster_key_file": path}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = Key(v)
		return err
	}
	if load() == nil {
		t.Error("a missing key was accepted")
	}
	for _, c := range []struct {
		content string
		mode    os.FileMode
		ok      bool
	}{{"0123456789abcdef0123456789abcdef", 0o600, true}, {"0123456789abcdef0123456789abcdef", 0o640, false}, {"short", 0o600, false}} {
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		if err := load(); (err == nil) != c.ok {
			t.Errorf("%d bytes, mode %o: %v", len(c.content), c.mode, err)
		}
	}
}
