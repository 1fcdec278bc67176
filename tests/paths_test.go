// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Once the root of a container is open nothing below it is named by a path: a
// path can be exchanged between two looks. The linter (forbidigo) has the rule
// as names; this reads the source of the system calls' package, so that none is
// forgotten, sees through renamed imports, and takes AT_FDCWD for what it is.

// walked are the places that may name host files by a constant path, before
// anything foreign is mounted or after everything is.
var walked = []string{
	"mount.go nullDevice", // the host's null device, verified by its number
	"exec.go executable",  // after pivot_root, / is the app's own
	"files.go bindDevice", // the host's node, verified by its number
	"copyup.go dress",     // a descriptor, by its name in the host's /proc
}

func TestNoPathsInTheChild(t *testing.T) {
	calls := pathCalls(t)
	files, err := filepath.Glob("../stage1/launch/child/*.go")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, v := range pathViolations(t, calls, file, nil) {
			t.Error(v)
		}
	}
}

// The check finds what it is for: each line of this file but those marked ok.
func TestNoPathsInTheChildIsFound(t *testing.T) {
	const seeded = `package child

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
	u "golang.org/x/sys/unix"
)

func f(p string, fd int) {
	os.Open(p)
	os.OpenFile(p, 0, 0)
	os.ReadFile(p)
	os.WriteFile(p, nil, 0)
	os.MkdirTemp(p, "")
	os.OpenRoot(p)
	os.DirFS(p)
	os.Lchown(p, 0, 0)
	os.StartProcess(p, nil, nil)
	exec.Command(p)
	filepath.EvalSymlinks(p)
	filepath.WalkDir(p, nil)
	unix.Open(p, 0, 0)
	unix.Creat(p, 0)
	unix.Mount(p, p, "", 0, "")
	unix.Unmount(p, 0)
	unix.PivotRoot(p, p)
	unix.Mkdir(p, 0)
	unix.Rmdir(p)
	unix.Mkfifo(p, 0)
	unix.Mknod(p, 0, 0)
	unix.Access(p, 0)
	unix.Chdir(p)
	unix.Lstat(p, nil)
	unix.Statfs(p, nil)
	unix.Readlink(p, nil)
	unix.Lgetxattr(p, "", nil)
	unix.Removexattr(p, "")
	unix.Truncate(p, 0)
	unix.Utimes(p, nil)
	unix.Link(p, p)
	unix.Openat(unix.AT_FDCWD, p, 0, 0)
	unix.Openat2(unix.AT_FDCWD, p, nil)
	unix.OpenTree(unix.AT_FDCWD, p, 0)
	unix.MoveMount(fd, "", unix.AT_FDCWD, p, 0)
	unix.Fchmodat(unix.AT_FDCWD, p, 0, 0)
	u.Open(p, 0, 0)
	syscall.Open(p, 0, 0)
	syscall.Mount(p, p, "", 0, "")
	syscall.Mkdir(p, 0)
	syscall.Chmod(p, 0)
	syscall.Openat(syscall.AT_FDCWD, p, 0, 0)
	open := unix.Open
	unix.Openat(fd, p, 0, 0)                // ok
	unix.Mkdirat(fd, p, 0)                  // ok
	unix.Chdir("/")                         // ok
	unix.PivotRoot(".", ".")                // ok
	unix.Open(p, 0, 0)                      //nolint:forbidigo // ok: it says why
	os.NewFile(0, p)                        // ok
	_ = open
}
`
	found := pathViolations(t, pathCalls(t), "seeded.go", seeded)
	for i, line := range strings.Split(seeded, "\n") {
		if !strings.HasPrefix(line, "\t") || strings.HasPrefix(line, "\t\"") || strings.HasPrefix(line, "\tu \"") || strings.HasPrefix(line, "\t_") {
			continue
		}
		position := fmt.Sprintf("seeded.go:%d:", i+1)
		got := slices.ContainsFunc(found, func(v string) bool { return strings.HasPrefix(v, position) })
		if want := !strings.Contains(line, " ok"); got != want {
			t.Errorf("line %d is found: %v, want %v: %s", i+1, got, want, strings.TrimSpace(line))
		}
	}
}

// pathCalls are the functions of x/sys/unix that take a path and no directory's
// descriptor before it.
func pathCalls(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "golang.org/x/sys/unix").Output()
	if err != nil {
		t.Skip("ability missing: the source, which the guest has not")
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{"path", "pathname", "oldpath", "newpath", "file", "link", "target", "source", "newroot", "putold", "dir", "argv0"}
	var calls []string
	for _, file := range files {
		if name := filepath.Base(file); !strings.Contains(name, "linux") && name != "syscall_unix.go" && name != "syscall.go" {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil || !fn.Name.IsExported() || len(fn.Type.Params.List) == 0 {
				continue
			}
			first := fn.Type.Params.List[0]
			kind, ok := first.Type.(*ast.Ident)
			if ok && kind.Name == "string" && len(first.Names) > 0 && slices.Contains(paths, first.Names[0].Name) {
				calls = append(calls, fn.Name.Name)
			}
		}
	}
	if len(calls) < 30 {
		t.Fatalf("only %d calls with a path were found: %v", len(calls), calls)
	}
	// Executing the app is the purpose; a link is made in a directory's descriptor.
	return slices.DeleteFunc(calls, func(name string) bool { return name == "Exec" || name == "Symlinkat" })
}

// harmless are what of package os names no file.
var harmless = []string{"NewFile", "File", "PathError", "Signal", "Environ", "Getpid", "ErrNotExist", "ErrExist", "NewSyscallError"}

func pathViolations(t *testing.T, calls []string, file string, src any) (out []string) {
	t.Helper()
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, src, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	excused := map[int]bool{}
	for _, group := range parsed.Comments {
		for _, c := range group.List {
			if strings.HasPrefix(c.Text, "//nolint:forbidigo // ") {
				excused[set.Position(c.Pos()).Line] = true
			}
		}
	}
	imports := map[string]string{}
	for _, spec := range parsed.Imports {
		p, _ := strconv.Unquote(spec.Path.Value)
		name := filepath.Base(p)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		imports[name] = p
	}
	for _, d := range parsed.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if ok && slices.Contains(walked, filepath.Base(file)+" "+fn.Name.Name) {
			continue
		}
		ast.Inspect(d, func(n ast.Node) bool {
			what := ""
			switch n := n.(type) {
			case *ast.CallExpr:
				if here(n) {
					return false
				}
			case *ast.SelectorExpr:
				what = named(imports, calls, n)
			}
			if at := set.Position(n1(n)); what != "" && !excused[at.Line] {
				out = append(out, fmt.Sprintf("%s:%d: %s names a file by its path; use internal/rootfs or internal/procfs", filepath.Base(at.Filename), at.Line, what))
			}
			return true
		})
	}
	return out
}

// n1 is where a node is; there is none for a nil one.
func n1(n ast.Node) token.Pos {
	if n == nil {
		return token.NoPos
	}
	return n.Pos()
}

// here tells whether all paths of a call are where the process is, or the root:
// chdir("/"), pivot_root(".", "."), mount_setattr(AT_FDCWD, "/").
func here(call *ast.CallExpr) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	literals := 0
	for i, arg := range call.Args {
		if lit, ok := arg.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if lit.Value != `"."` && lit.Value != `"/"` && lit.Value != `""` {
				return false
			}
			literals++
		}
		if at, ok := arg.(*ast.SelectorExpr); ok && at.Sel.Name == "AT_FDCWD" {
			if lit, ok := call.Args[i+1].(*ast.BasicLit); !ok || lit.Value != `"/"` {
				return false
			}
		}
	}
	return literals > 0 && slices.Contains([]string{"Chdir", "PivotRoot", "Unmount", "MountSetattr", "MoveMount"}, sel.Sel.Name)
}

// named says what a selector is if it names files by paths.
func named(imports map[string]string, calls []string, sel *ast.SelectorExpr) string {
	pkg, ok := sel.X.(*ast.Ident)
	if !ok {
		return ""
	}
	name := pkg.Name + "." + sel.Sel.Name
	switch imports[pkg.Name] {
	case "os":
		if !slices.Contains(harmless, sel.Sel.Name) {
			return name
		}
	case "golang.org/x/sys/unix", "syscall":
		if slices.Contains(calls, sel.Sel.Name) || sel.Sel.Name == "AT_FDCWD" {
			return name
		}
	case "os/exec", "io/ioutil":
		return name
	case "path/filepath":
		if slices.Contains([]string{"EvalSymlinks", "Walk", "WalkDir", "Glob", "Abs"}, sel.Sel.Name) {
			return name
		}
	}
	return ""
}
