package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// simulated are the rooms that must run in the simulator (docs/architecture.md), with everything below them except the rooms of free. Those of planned do not exist yet.
var (
	simulated = []string{"core/peer", "core/client", "core/images", "osd", "monitor", "appliance/reservations"}
	free      = []string{"osd/disk"}
	planned   = []string{"appliance/reservations"}
)

// simulator are the rooms that decide what happens in the simulator. They may have locks, since Post comes from any goroutine, but choose nothing by a clock, a map or luck.
var simulator = []string{"core/sim", "core/registry/memory", "core/loop/turn"}

// TestSimulatedRoomsAreDeterministic reads the source of the rooms that must run in the simulator.
func TestSimulatedRoomsAreDeterministic(t *testing.T) { deterministic(t, simulated, false) }

// TestSimulatorIsDeterministic reads the source of the simulator.
func TestSimulatorIsDeterministic(t *testing.T) { deterministic(t, simulator, true) }

func deterministic(t *testing.T, list []string, locks bool) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var patterns []string
	for _, room := range list {
		// The walk lets go test know what its cached result depends on; go list reads in a process of its own.
		err := filepath.WalkDir(filepath.Join(root, room), func(_ string, _ fs.DirEntry, err error) error { return err })
		switch isPlanned := slices.Contains(planned, room); {
		case err == nil && isPlanned:
			t.Errorf("%s exists now: take it out of the list of planned rooms", room)
		case err != nil && !isPlanned:
			t.Errorf("room %s: %v", room, err)
		}
		if err == nil {
			patterns = append(patterns, "./"+room+"/...")
		}
	}
	findings, read := checkRooms(t, root, patterns, locks)
	for _, finding := range findings {
		t.Error(finding)
	}
	for _, room := range list {
		in := func(path string) bool {
			return path == "holdfast/"+room || strings.HasPrefix(path, "holdfast/"+room+"/")
		}
		if !slices.Contains(planned, room) && !slices.ContainsFunc(read, in) {
			t.Errorf("no package of room %s was read", room)
		}
	}
}

// goPackage is what go list says of a package.
type goPackage struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	IgnoredGoFiles          []string // with another build tag
	DepOnly                 bool
}

// checkRooms type-checks the packages against the compiler's export data and returns what is wrong, as file:line: what, and what was read.
func checkRooms(t *testing.T, root string, patterns []string, locks bool) (findings, read []string) {
	cmd := exec.Command("go", append([]string{"list", "-e", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,IgnoredGoFiles,DepOnly"}, patterns...)...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	exports := map[string]string{}
	var rooms []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		exports[p.ImportPath] = p.Export
		rel, err := filepath.Rel(root, p.Dir)
		isFree := func(f string) bool { return rel == f || strings.HasPrefix(rel, f+"/") }
		if !p.DepOnly && err == nil && !slices.ContainsFunc(free, isFree) {
			rooms = append(rooms, p)
		}
	}
	fset := token.NewFileSet()
	imp := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("no export data for %s: %w", path, fs.ErrNotExist)
		}
		return os.Open(exports[path])
	})
	for _, p := range rooms {
		read = append(read, p.ImportPath)
		var files []*ast.File
		for _, name := range slices.Concat(p.GoFiles, p.IgnoredGoFiles) {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		findings = append(findings, checkPackage(fset, imp, p.ImportPath, files, locks)...)
	}
	for i := range findings {
		findings[i] = strings.TrimPrefix(findings[i], root+"/")
	}
	return findings, read
}

// checker reads the files of one package.
type checker struct {
	fset     *token.FileSet
	locks    bool // are allowed
	info     *types.Info
	orders   map[string]bool // file:line of "// order:" comments
	sorted   map[ast.Node]bool
	findings []string
}

func checkPackage(fset *token.FileSet, imp types.Importer, path string, files []*ast.File, locks bool) []string {
	c := &checker{
		fset:   fset,
		locks:  locks,
		info:   &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}},
		orders: map[string]bool{},
		sorted: map[ast.Node]bool{},
	}
	// Errors (of a package that is being worked on, or of files of another build tag) leave gaps in info; the compiler reports them.
	conf := types.Config{Importer: imp, Error: func(error) {}}
	_, _ = conf.Check(path, fset, files, c.info)
	for _, f := range files {
		c.file(f)
	}
	return c.findings
}

func (c *checker) add(n ast.Node, format string, args ...any) {
	p := c.fset.Position(n.Pos())
	c.findings = append(c.findings, fmt.Sprintf("%s:%d: %s", p.Filename, p.Line, fmt.Sprintf(format, args...)))
}

var (
	forbiddenImports = map[string]string{
		"sync": "state belongs to one loop", "sync/atomic": "state belongs to one loop", "context": "use deadlines on the loop",
		"math/rand": "use Loop.Rand", "crypto/rand": "use Loop.Rand",
	}
	lockImports = []string{"sync", "sync/atomic", "context"}
	clockFuncs  = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"}
	randMakers  = []string{"New", "NewPCG", "NewChaCha8", "NewZipf"}
)

func (c *checker) file(f *ast.File) {
	for _, imp := range f.Imports {
		path, _ := strconv.Unquote(imp.Path.Value)
		if why, bad := forbiddenImports[path]; bad && !(c.locks && slices.Contains(lockImports, path)) {
			c.add(imp, "imports %s; %s", path, why)
		}
	}
	for _, group := range f.Comments {
		for _, cm := range group.List {
			if text, ok := strings.CutPrefix(cm.Text, "// order:"); ok && strings.TrimSpace(text) != "" {
				// The reason may take several lines: the comment's last line counts as well.
				for _, at := range []token.Pos{cm.Pos(), group.End()} {
					p := c.fset.Position(at)
					c.orders[fmt.Sprintf("%s:%d", p.Filename, p.Line)] = true
				}
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			c.add(n, "go statement; a room in the simulator runs on its loop only")
		case *ast.ChanType:
			c.add(n, "channel type")
		case *ast.SendStmt:
			c.add(n, "send on a channel")
		case *ast.SelectStmt:
			c.add(n, "select statement")
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				c.add(n, "receive from a channel")
			}
		case *ast.Ident:
			c.use(n)
		case *ast.CallExpr:
			c.call(n)
		case *ast.BlockStmt:
			c.block(n.List)
		case *ast.CaseClause:
			c.block(n.Body)
		case *ast.RangeStmt:
			c.ranges(n)
		}
		return true
	})
}

// use reports clocks and global generators, called or not.
func (c *checker) use(id *ast.Ident) {
	f, ok := c.info.Uses[id].(*types.Func)
	if !ok || f.Pkg() == nil || f.Signature().Recv() != nil {
		return
	}
	switch f.Pkg().Path() {
	case "time":
		if slices.Contains(clockFuncs, f.Name()) {
			c.add(id, "time.%s; use Loop.Now and Loop.Arm", f.Name())
		}
	case "math/rand/v2":
		if !slices.Contains(randMakers, f.Name()) {
			c.add(id, "rand.%s draws from the global generator; use Loop.Rand", f.Name())
		}
	}
}

// call reports iterators over maps, unless they go straight into a sort.
func (c *checker) call(call *ast.CallExpr) {
	f := c.callee(call.Fun)
	if f == nil || f.Pkg() == nil {
		return
	}
	switch path, name := f.Pkg().Path(), f.Name(); {
	case path == "slices" && strings.HasPrefix(name, "Sorted"):
		for _, arg := range call.Args {
			c.sorted[arg] = true
		}
	case path == "maps" && (name == "Keys" || name == "Values" || name == "All"):
		if !c.sorted[call] && !c.excused(call) {
			c.add(call, "maps.%s in no order; sort it, or say why the order cannot matter in an \"// order:\" comment", name)
		}
	}
}

func (c *checker) callee(fun ast.Expr) *types.Func {
	switch fun := ast.Unparen(fun).(type) {
	case *ast.Ident:
		f, _ := c.info.Uses[fun].(*types.Func)
		return f
	case *ast.SelectorExpr:
		f, _ := c.info.Uses[fun.Sel].(*types.Func)
		return f
	case *ast.IndexExpr:
		return c.callee(fun.X)
	case *ast.IndexListExpr:
		return c.callee(fun.X)
	}
	return nil
}

// block excuses loops over maps that only collect into a slice which a later statement of the block sorts.
func (c *checker) block(list []ast.Stmt) {
	for i, s := range list {
		r, ok := s.(*ast.RangeStmt)
		if !ok {
			continue
		}
		into := collects(r.Body)
		if into == "" {
			continue
		}
		for _, later := range list[i+1:] {
			if c.sorts(later, into) {
				c.sorted[r] = true
			}
		}
	}
}

// collects is the variable that a body does nothing but append to, perhaps under a condition; "" when it does anything else.
func collects(body *ast.BlockStmt) string {
	if len(body.List) != 1 {
		return ""
	}
	switch s := body.List[0].(type) {
	case *ast.IfStmt:
		if s.Else == nil && s.Init == nil {
			return collects(s.Body)
		}
	case *ast.AssignStmt:
		if len(s.Lhs) != 1 || len(s.Rhs) != 1 {
			return ""
		}
		call, ok := s.Rhs[0].(*ast.CallExpr)
		if !ok || len(call.Args) == 0 || types.ExprString(call.Fun) != "append" || types.ExprString(call.Args[0]) != types.ExprString(s.Lhs[0]) {
			return ""
		}
		return types.ExprString(s.Lhs[0])
	}
	return ""
}

// sorts reports whether a statement is a call that sorts the variable.
func (c *checker) sorts(s ast.Stmt, variable string) bool {
	e, ok := s.(*ast.ExprStmt)
	if !ok {
		return false
	}
	call, ok := e.X.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 || types.ExprString(call.Args[0]) != variable {
		return false
	}
	f := c.callee(call.Fun)
	return f != nil && f.Pkg() != nil && (f.Pkg().Path() == "sort" || f.Pkg().Path() == "slices" && strings.HasPrefix(f.Name(), "Sort"))
}

func (c *checker) ranges(r *ast.RangeStmt) {
	t := c.info.TypeOf(r.X)
	if t == nil {
		return
	}
	switch coreType(t).(type) {
	case *types.Chan:
		c.add(r, "range over a channel")
	case *types.Map:
		if blank(r.Key) && blank(r.Value) || c.sorted[r] || c.excused(r) {
			return
		}
		c.add(r, "range over %s in no order; sort it, or say why the order cannot matter in an \"// order:\" comment", types.ExprString(r.X))
	}
}

func blank(e ast.Expr) bool {
	id, ok := e.(*ast.Ident)
	return e == nil || ok && id.Name == "_"
}

// coreType is what lies under t, also when t is a type parameter whose types all have one kind.
func coreType(t types.Type) types.Type {
	if p, ok := types.Unalias(t).(*types.TypeParam); ok {
		if u, ok := p.Underlying().(*types.Interface); ok && u.NumEmbeddeds() > 0 {
			if un, ok := u.EmbeddedType(0).(*types.Union); ok && un.Len() > 0 {
				return un.Term(0).Type().Underlying()
			}
			return u.EmbeddedType(0).Underlying()
		}
	}
	return t.Underlying()
}

// excused reports whether an "// order:" comment stands on the node's line or on the one before.
func (c *checker) excused(n ast.Node) bool {
	p := c.fset.Position(n.Pos())
	return c.orders[fmt.Sprintf("%s:%d", p.Filename, p.Line)] || c.orders[fmt.Sprintf("%s:%d", p.Filename, p.Line-1)]
}

// forbidden has on each line that ends in "// bad" something to find, and on no other.
const forbidden = `package room

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"sync" // bad
	"time"
)

var mu sync.Mutex

type ids map[int]string

type room struct {
	byID  ids
	inbox chan int // bad
}

func keys[M ~map[K]V, K comparable, V any](m M) (out []K) {
	for k := range m { // bad
		out = append(out, k)
	}
	return out
}

func (r *room) run(f func()) {
	go f() // bad
	r.inbox <- 1 // bad
	<-r.inbox // bad
	select {} // bad
	for range r.inbox { // bad
	}
	clock := time.Now // bad
	_ = clock
	_ = time.Duration(3) * time.Second
	_ = rand.IntN(3) // bad
	_ = rand.New(rand.NewPCG(1, 2)).IntN(3)
	for id := range r.byID { // bad
		_ = id
	}
	for range r.byID {
	}
	n := 0
	for _, s := range r.byID { // order: a sum
		n += len(s)
	}
	// order: a sum that is
	// explained at length
	for _, s := range r.byID {
		n += len(s)
	}
	// order:
	for _, s := range r.byID { // bad
		n += len(s)
	}
	var sorted []int
	for id := range r.byID {
		if id > 3 {
			sorted = append(sorted, id)
		}
	}
	sort.Ints(sorted)
	for id := range r.byID { // bad
		sorted = append(sorted, id)
	}
	_ = slices.Sorted(maps.Keys(r.byID))
	for id := range maps.Keys(r.byID) { // bad
		_ = id
	}
	for i := range slices.Backward(sorted) {
		_ = i
	}
}
`

func TestForbiddenThingsAreFound(t *testing.T) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "room.go", forbidden, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var want, got []int
	for i, line := range strings.Split(forbidden, "\n") {
		if strings.HasSuffix(line, "// bad") {
			want = append(want, i+1)
		}
	}
	for _, finding := range checkPackage(fset, importer.ForCompiler(fset, "source", nil), "room", []*ast.File{f}, false) {
		line, err := strconv.Atoi(strings.Split(finding, ":")[1])
		if err != nil {
			t.Fatalf("finding without a line: %s", finding)
		}
		got = append(got, line)
	}
	slices.Sort(got)
	if got := slices.Compact(got); !slices.Equal(got, want) {
		t.Errorf("found something in lines %v, want %v", got, want)
	}
}
