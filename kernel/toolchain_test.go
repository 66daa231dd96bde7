package kernel

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// writeProgram writes a script that is a program.
func writeProgram(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func realGCC(t *testing.T) string {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Fatal("gcc is not installed: run lab doctor --install")
	}
	return gcc
}

func TestFindToolchain(t *testing.T) {
	plain, err := FindToolchain(t.Context(), t.TempDir(), "gcc")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gcc", "cc1", "as", "ld"} {
		if tool := plain.tool(name); tool.Version == "" || !strings.HasPrefix(tool.Digest, "sha256:") || !filepath.IsAbs(tool.Path) {
			t.Errorf("%s: %+v", name, tool)
		}
	}
	if plain.Compiler() != plain.tool("gcc").Version || plain.Image != "" {
		t.Errorf("%+v", plain)
	}

	// The same bytes elsewhere, under another name, are the same toolchain.
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gcc-77", "bin/gcc"} {
		if err := os.Symlink(realGCC(t), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for _, name := range []string{"gcc-77", filepath.Join(dir, "gcc-77"), dir, filepath.Join(dir, "bin"), filepath.Join(dir, "bin/gcc")} {
		other, err := FindToolchain(t.Context(), t.TempDir(), name)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(plain.Identity(), other.Identity()) {
			t.Errorf("%s: %q, want %q", name, other.Identity(), plain.Identity())
		}
		if other.tool("gcc").Path == plain.tool("gcc").Path {
			t.Errorf("%s: found at %s", name, other.tool("gcc").Path)
		}
	}
	for _, tool := range plain.Public().Tools {
		if tool.Path != "" || tool.Digest == "" {
			t.Errorf("in public: %+v", tool)
		}
	}

	var missing *MissingError
	if _, err := FindToolchain(t.Context(), t.TempDir(), "gcc-none"); !errors.As(err, &missing) || missing.Tool != "gcc-none" {
		t.Errorf("error %v, want that gcc-none is missing", err)
	}
	if _, err := FindToolchain(t.Context(), t.TempDir(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "without gcc or bin/gcc") {
		t.Errorf("error %v about an empty folder", err)
	}
}

// TestToolchainOfABuild builds with gcc under another name, which finds what plain
// gcc built, and with another compiler, which does not.
func TestToolchainOfABuild(t *testing.T) {
	r := newRepo(t)
	tree := open(t, t.TempDir(), r.dir)
	o := fragments("CONFIG_A=y\n")
	o.Recompile = true // ccache calls a compiler with its arguments in another order
	first := build(t, tree, "HEAD", o)
	if first.Toolchain == nil || first.Toolchain.Compiler() != first.Compiler || first.cached {
		t.Fatalf("%+v", first)
	}

	dir := t.TempDir()
	same, other := filepath.Join(dir, "gcc-77"), filepath.Join(dir, "other/bin/gcc")
	if err := os.Symlink(realGCC(t), same); err != nil {
		t.Fatal(err)
	}
	writeProgram(t, other, fmt.Sprintf("test \"$1\" = -c || test \"$2\" != -c || echo 'const int other = 1;' >> \"$5\"\nexec %s \"$@\"\n", realGCC(t)))
	for _, test := range []struct {
		name   string
		cached bool
	}{{same, true}, {other, false}, {other, true}} {
		var err error
		if o.Toolchain, err = FindToolchain(t.Context(), filepath.Dir(tree.trees), test.name); err != nil {
			t.Fatal(err)
		}
		b := build(t, tree, "HEAD", o)
		if b.cached != test.cached || b.Toolchain.tool("gcc").Path == first.Toolchain.tool("gcc").Path {
			t.Errorf("%s: cached %v, toolchain %+v", test.name, b.cached, b.Toolchain)
		}
		if (b.Digest == first.Digest) != (test.name == same) {
			t.Errorf("%s: kernel %s, and %s with gcc", test.name, b.Digest, first.Digest)
		}
		if _, f, err := tree.Configure(t.Context(), "HEAD", o); err != nil || f != nil {
			t.Errorf("%s: configure: %v, %+v", test.name, err, f)
		}
	}
}

// TestToolchainByAge has an old tree built with the old compiler, and the choice
// told.
func TestToolchainByAge(t *testing.T) {
	dir := t.TempDir()
	// It is known by what it says, whatever it is called.
	writeProgram(t, filepath.Join(dir, "gcc-4.9"), fmt.Sprintf("test \"$1\" = --version && { echo 'gcc (Old) 4.9.4'; exit; }\nexec %s \"$@\"\n", realGCC(t)))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	r := newRepo(t)
	old := r.change("old", "Makefile", "VERSION = 3\nPATCHLEVEL = 14\n"+fakeMakefile)
	recent := r.change("recent", "Makefile", "VERSION = 6\nPATCHLEVEL = 1\n"+fakeMakefile)
	tree := open(t, t.TempDir(), r.dir)
	o := fragments("CONFIG_A=y\n")
	var notices []string
	o.Notice = func(text string) { notices = append(notices, text) }
	b := build(t, tree, old, o)
	if b.Compiler != "gcc (Old) 4.9.4" || len(notices) != 1 || !strings.Contains(notices[0], "gcc-4.9 for Linux 3.14") {
		t.Errorf("built with %s, notices %q", b.Compiler, notices)
	}
	found, err := Compilers(t.Context())
	if err != nil || len(found) < 2 || found[0].Name != "gcc" || !slices.ContainsFunc(found, func(c Tool) bool { return c.Name == "gcc-4.9" && c.Version == "gcc (Old) 4.9.4" }) {
		t.Errorf("found %+v, %v", found, err)
	}
	// One for both, of which nothing is known to build the two.
	notices = nil
	one, err := tree.ChooseToolchain(t.Context(), o.Notice, old, recent)
	if err != nil || one.Compiler() == "gcc (Old) 4.9.4" || len(notices) != 1 || !strings.Contains(notices[0], "no one gcc") {
		t.Errorf("chose %s, notices %q, %v", one.Compiler(), notices, err)
	}
}

func TestResolveIn(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"usr/bin", "etc/alternatives"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeProgram(t, filepath.Join(root, "usr/bin/real"), "")
	for name, target := range map[string]string{
		"bin": "usr/bin", "usr/bin/absolute": "/etc/alternatives/cc", "etc/alternatives/cc": "/usr/bin/real",
		"usr/bin/up": "../../../../../../usr/bin/real", "usr/bin/loop": "loop", "usr/bin/out": "/etc/passwd", "usr/bin/host": "../../../../../../../../../../etc/passwd",
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		"/bin/real": "usr/bin/real", "/bin/absolute": "usr/bin/real", "/bin/up": "usr/bin/real", "/../usr/./bin//real": "usr/bin/real",
		"/bin/loop": "", "/bin/out": "", "/bin/host": "", "/bin/none": "",
	} {
		got, err := resolveIn(root, path)
		if want != "" {
			want = filepath.Join(root, want)
		}
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", path, got, err, want)
		}
	}
	if found, real := lookIn(root, "relative:/none:/bin", "absolute"); found != "/bin/absolute" || real != filepath.Join(root, "usr/bin/real") {
		t.Errorf("found %q, %q", found, real)
	}
}
