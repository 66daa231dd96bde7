package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// oldCompiler puts a gcc-4.9 on the PATH, which is what it says it is.
func oldCompiler(t *testing.T) {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Fatal("gcc is not installed: run lab doctor --install")
	}
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\ntest \"$1\" = --version && { echo 'gcc (Old) 4.9.4'; exit; }\nexec %s \"$@\"\n", gcc)
	if err := os.WriteFile(filepath.Join(dir, "gcc-4.9"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// TestBisectHasOneToolchain bisects old commits: one compiler for all of them,
// chosen by their age and told once. Another is another bisect.
func TestBisectHasOneToolchain(t *testing.T) {
	oldCompiler(t)
	r := newSmallRepo(t)
	r.write("Makefile", "VERSION = 3\nPATCHLEVEL = 14\n"+smallMakefile)
	good := r.commit("old", "fine")
	r.commit("between", "fine")
	r.commit("bad", "broken")
	l := testLab(t)
	var said []string
	l.Progress.Line = func(line string) { said = append(said, line) }
	o := r.options(good, "main")
	bisect := func(toolchain string) (Bisection, error) {
		o.Spec.Kernel.Toolchain = toolchain
		return l.Bisect(t.Context(), o)
	}
	b, err := bisect("")
	if err != nil {
		t.Fatal(err)
	}
	if b.Culprit == nil || b.Toolchain == nil || b.Toolchain.Compiler() != "gcc (Old) 4.9.4" || b.Toolchain.Tools[0].Path != "" {
		t.Errorf("culprit %+v, toolchain %+v", b.Culprit, b.Toolchain)
	}
	told := slices.DeleteFunc(slices.Clone(said), func(line string) bool { return !strings.HasPrefix(line, "compiler: gcc-4.9 for Linux 3.14") })
	if len(told) != 1 {
		t.Errorf("said %q", said)
	}
	if _, err := bisect("gcc"); err == nil || !strings.Contains(err.Error(), "another one (other ends, test, image, config, compiler") {
		t.Errorf("with another compiler: %v", err)
	}
	// Named, the same compiler is the same bisect.
	if again, err := bisect("gcc-4.9"); err != nil || again.Culprit == nil || len(again.Tested) != len(b.Tested) {
		t.Errorf("named: %+v, %v", again.Tested, err)
	}
	dirs := map[string]bool{}
	o.Dir = ""
	for _, name := range []string{"", "gcc-4.9", "gcc"} {
		b, err := bisect(name)
		if err != nil {
			t.Fatal(err)
		}
		dirs[b.Dir] = true
	}
	if len(dirs) != 2 {
		t.Errorf("two toolchains have the folders %v", dirs)
	}
}
