// Package rooms checks that the rooms of the house import each other only as docs/architecture.md says.
package rooms

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "holdfast/"

// listed is what `go list -json` says of a package.
type listed struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) (out []listed) {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	d := json.NewDecoder(bytes.NewReader(b))
	for {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
}

// within reports whether a path is a folder or below it.
func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

// ruleOf finds the rule of a package.
func ruleOf(pkg string) (best rule, ok bool) {
	for _, r := range rules {
		if within(pkg, r.room) && len(r.room) >= len(best.room) {
			best, ok = r, true
		}
	}
	return best, ok
}

// fault is what is wrong with one edge, or "".
func fault(pkg, imported string) string {
	r, ok := ruleOf(pkg)
	if !ok {
		return fmt.Sprintf("%s has no room: give it a rule here, and a paragraph in docs/architecture.md", pkg)
	}
	if path, own := strings.CutPrefix(imported, module); own {
		if within(path, "tests") && !within(pkg, "tests") {
			return fmt.Sprintf("%s imports %s: nothing imports tests", pkg, path)
		}
		if within(path, r.room) || slices.ContainsFunc(r.may, func(f string) bool { return within(path, f) }) {
			return ""
		}
		return fmt.Sprintf("%s imports %s: %s", pkg, path, r.why)
	}
	if first, _, _ := strings.Cut(imported, "/"); strings.Contains(first, ".") {
		if !slices.ContainsFunc(r.others, func(m string) bool { return within(imported, m) }) {
			return fmt.Sprintf("%s imports %s: %s", pkg, imported, r.why)
		}
		return ""
	}
	if slices.ContainsFunc(pure, func(f string) bool { return within(pkg, f) }) && slices.ContainsFunc(impure, func(f string) bool { return within(imported, f) }) {
		return fmt.Sprintf("%s imports %s: it is pure, it takes values and returns values", pkg, imported)
	}
	return ""
}

func TestImportsOnlyGoDown(t *testing.T) {
	edges := 0
	for _, p := range packages(t) {
		pkg := strings.TrimPrefix(p.ImportPath, module)
		for _, imported := range p.Imports {
			edges++
			if f := fault(pkg, imported); f != "" {
				t.Error(f)
			}
		}
	}
	if edges < 100 {
		t.Errorf("go list showed only %d imports", edges)
	}
}

func TestForbiddenEdgesAreNamedWithTheirReason(t *testing.T) {
	for _, c := range []struct{ pkg, imports, want string }{
		{"frontends/nbd", module + "core/client", "frontends/nbd imports core/client: protocol servers know nothing of clusters"},
		{"frontends/nfs/xdr", module + "frontends/iscsi", "frontends/nfs/xdr imports frontends/iscsi: "},
		{"core/layout", "golang.org/x/sys/unix", "core/layout imports golang.org/x/sys/unix: layout is pure"},
		{"osd/peering", "os", "osd/peering imports os: it is pure"},
		{"osd/store", module + "core/peer", "the store is one disk"},
		{"core/images", module + "tests/sim", "nothing imports tests"},
		{"util", "fmt", "util has no room"},
		{"core/registry/etcd", "go.etcd.io/etcd/client/v3", ""},
		{"osd/primary", module + "osd/store", ""},
		{"core/loop/uring", module + "core/loop/buf", ""},
		{"core/layout", "fmt", ""},
	} {
		got := fault(c.pkg, c.imports)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("fault(%s, %s) = %q, want %q", c.pkg, c.imports, got, c.want)
		}
	}
}
