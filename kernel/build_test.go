package kernel

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lab/kernel/kconfig"
)

func TestBuildIsIncrementalAndCached(t *testing.T) {
	r := newRepo(t)
	first := r.git("rev-parse", "HEAD")
	b := r.change("b changes", "src/b.c", "#include \"all.h\"\nint b(void) { return ALL + 1; }\n")
	docs := r.change("docs", "README", "documented\n")
	broken := r.change("broken", "src/c.c", "int c(void) { return missing; }\n")
	repaired := r.change("repaired", "src/c.c", "#include \"all.h\"\nint c(void) { return ALL; }\n")
	cache := t.TempDir()
	tree := open(t, cache, r.dir)
	o := fragments("CONFIG_A=y\nCONFIG_NOSUCH=y\n# CONFIG_B is not set\n")

	k1 := build(t, tree, first, o)
	k1.compiled(t, "src/a.o", "src/b.o", "src/c.o")
	if k1.cached || k1.Release != "6.1.0-fake" || k1.Commit != first || k1.Source != "commit "+first || !strings.Contains(k1.Compiler, "gcc") {
		t.Errorf("first build: %+v", k1)
	}
	if diff := cmp.Diff([]string{"CONFIG_NOSUCH: asked for y, is absent"}, k1.Missing); diff != "" {
		t.Errorf("Missing (-want +got):\n%s", diff)
	}
	if digest, err := digestFile(k1.Image); err != nil || digest != k1.Digest {
		t.Errorf("digest of the image is %s (%v), the kernel's says %s", digest, err, k1.Digest)
	}
	if text := read(t, k1.Config); !bytes.Contains(text, []byte("CONFIG_A=y")) {
		t.Errorf("config: %s", text)
	}
	if !bytes.Contains(read(t, k1.SystemMap), []byte(" T a")) || !bytes.Contains(read(t, k1.Log), []byte("  CC      src/a.o")) {
		t.Error("System.map or build log is not that of the build")
	}

	if again := build(t, tree, first, o); !again.cached || again.Image != k1.Image || len(again.objects) != 0 {
		t.Errorf("the same commit again: %+v", again)
	}
	k2 := build(t, tree, b, o)
	k2.compiled(t, "src/b.o")
	if k2.Digest == k1.Digest {
		t.Error("a changed source gave the same bytes")
	}
	k3 := build(t, tree, docs, o)
	k3.compiled(t)
	if k3.cached || k3.Digest != k2.Digest || k3.Commit != docs {
		t.Errorf("a commit that compiles nothing: cached %v, digest %s, want a build with digest %s", k3.cached, k3.Digest, k2.Digest)
	}

	bad := build(t, tree, broken, o)
	if bad.failure == nil || bad.failure.Step != "compile" || !strings.HasPrefix(bad.failure.Line, "src/c.c:1:") || !strings.Contains(bad.failure.Line, "'missing' undeclared") {
		t.Fatalf("failure: %+v", bad.failure)
	}
	if !bytes.Contains(read(t, bad.failure.Log), []byte("missing")) {
		t.Error("the failure's log does not have its line")
	}
	if again := build(t, tree, broken, o); !again.cached || again.failure == nil || *again.failure != *bad.failure {
		t.Errorf("the failure again: cached %v, %+v", again.cached, again.failure)
	}
	// The same tree as an earlier commit's is that kernel, under its own name.
	k4 := build(t, tree, repaired, o)
	if !k4.cached || k4.Digest != k3.Digest || k4.Commit != repaired {
		t.Errorf("a commit with an earlier tree: %+v", k4)
	}
	// Back at the first commit with another configuration: all of it again.
	k5 := build(t, tree, first, fragments("CONFIG_A=n\n"))
	k5.compiled(t, "src/a.o", "src/b.o", "src/c.o")

	// Another cache, another directory: the same bytes.
	other := build(t, open(t, t.TempDir(), r.dir), b, o)
	if other.cached || other.Digest != k2.Digest {
		t.Errorf("built elsewhere: digest %s, want %s", other.Digest, k2.Digest)
	}
}

func TestBuildDoesNotTouchTheUsersTree(t *testing.T) {
	r := newRepo(t)
	first := r.git("rev-parse", "HEAD")
	second := r.change("second", "src/a.c", "int a(void) { return 2; }\n")
	hook := "#!/bin/sh\ntouch " + filepath.Join(r.dir, "HOOK-RAN") + "\n"
	r.write(map[string]string{"src/a.c": "dirty\n", "untracked.c": "untracked\n", ".git/hooks/post-checkout": hook})
	if err := os.Chmod(filepath.Join(r.dir, ".git/hooks/post-checkout"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.git("status") // settles the index
	before := snapshot(t, r.dir)
	for name, value := range map[string]string{
		"GIT_DIR": "/nonexistent", "GIT_WORK_TREE": "/nonexistent", "GIT_INDEX_FILE": "/nonexistent",
		"LOCALVERSION": "-mine", "KCFLAGS": "-O0", "MAKEFLAGS": "-n", "LC_ALL": "de_DE.UTF-8", "KBUILD_BUILD_USER": "me",
	} {
		t.Setenv(name, value)
	}
	cache := t.TempDir()
	tree := open(t, cache, r.dir)
	o := fragments("CONFIG_A=y\n")
	for _, commit := range []string{first, second, "HEAD~1"} {
		if b := build(t, tree, commit, o); b.failure != nil {
			t.Fatalf("build %s: %+v", commit, b.failure)
		}
	}
	if _, err := tree.Range(t.Context(), []string{first}, "main"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, snapshot(t, r.dir)); diff != "" {
		t.Errorf("the user's repository changed (-before +after):\n%s", diff)
	}
	environment := string(read(t, filepath.Join(tree.base, "src/environment")))
	for _, line := range strings.Split(environment, "\n") {
		name, value, _ := strings.Cut(line, "=")
		switch name {
		case "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "KCFLAGS":
			t.Errorf("%s reaches the build", line)
		case "LOCALVERSION", "KBUILD_BUILD_USER", "LC_ALL":
			if want := map[string]string{"LOCALVERSION": "", "KBUILD_BUILD_USER": "lab", "LC_ALL": "C"}[name]; value != want {
				t.Errorf("the build sees %s, want %q", line, want)
			}
		}
	}
	if !strings.Contains(environment, "LOCALVERSION=\n") || !strings.Contains(environment, "KBUILD_BUILD_TIMESTAMP=") {
		t.Errorf("the build's environment lacks what makes it deterministic:\n%s", environment)
	}
}

// What is refused is not compiled, and not remembered: whoever wants it gets it.
func TestBuildRefuses(t *testing.T) {
	tree := open(t, t.TempDir(), newRepo(t).dir)
	o := fragments("CONFIG_A=y\n")
	before := build(t, tree, "HEAD", o)
	o.Fragments[0].Data = []byte("CONFIG_B=y\n")
	refusing := o
	refusing.Refuse = func(c kconfig.Config) *Failure {
		if c["A"] == "y" {
			return nil
		}
		return &Failure{Step: "mine", Line: "no A"}
	}
	for range 2 {
		b := build(t, tree, "HEAD", refusing)
		if b.failure == nil || b.failure.Step != "mine" || b.failure.Line != "no A" || b.cached || len(b.objects) > 0 {
			t.Fatalf("failure %+v, cached %v, compiled %q", b.failure, b.cached, b.objects)
		}
	}
	if b := build(t, tree, "HEAD", o); b.failure != nil || b.cached || b.Digest == before.Digest {
		t.Errorf("for another: %+v, failure %v, cached %v", b.Kernel, b.failure, b.cached)
	}
	refusing.Fragments = fragments("CONFIG_A=y\n# CONFIG_B is not set\n").Fragments
	if b := build(t, tree, "HEAD", refusing); b.failure != nil {
		t.Errorf("refused: %+v", b.failure)
	}
}

func TestBuildFullConfig(t *testing.T) {
	r := newRepo(t)
	tree := open(t, t.TempDir(), r.dir)
	o := BuildOptions{Fragments: []kconfig.Fragment{
		{Name: "distro", Data: []byte("#\n# Automatically generated file; DO NOT EDIT.\n#\nCONFIG_A=y\nCONFIG_B=y\n")},
		{Name: "mine", Data: []byte("# CONFIG_B is not set\n")},
	}}
	text := string(read(t, build(t, tree, "HEAD", o).Config))
	if !strings.Contains(text, `MADE_BY="olddefconfig"`) || strings.Index(text, "CONFIG_B=y") > strings.Index(text, "# CONFIG_B is not set") {
		t.Errorf("config:\n%s", text)
	}
	old := r.change("an old tree", "scripts/kconfig/Makefile", "oldnoconfig:\n")
	if text := string(read(t, build(t, tree, old, o).Config)); !strings.Contains(text, `MADE_BY="oldnoconfig"`) {
		t.Errorf("config of an old tree:\n%s", text)
	}
}

// Whatever is wrong with the host is an error, and nothing about it is cached.
func TestHostFaults(t *testing.T) {
	r := newRepo(t)
	libelf := func(err error) bool {
		var missing *MissingError
		return errors.As(err, &missing) && missing.Tool == "gelf.h"
	}
	is := func(want error) func(error) bool {
		return func(err error) bool { return errors.Is(err, want) }
	}
	for _, test := range []struct {
		name, hook string
		want       func(error) bool
	}{
		{"disk full", "echo 'x.c:1: error: real'; echo 'cp: error writing x: No space left on device'; exit 1", is(syscall.ENOSPC)},
		{"out of memory", "echo 'gcc: fatal error: Killed signal terminated program cc1'; exit 1", is(ErrInterrupted)},
		{"make killed", "kill -9 $PPID", is(ErrInterrupted)},
		{"no libelf", "echo 'x.h:3:10: fatal error: gelf.h: No such file or directory'; exit 1", libelf},
	} {
		r.write(map[string]string{"HOOK": test.hook + "\n"})
		commit := r.commit(test.name)
		cache := t.TempDir()
		tree := open(t, cache, r.dir)
		for range 2 {
			if b, err := tryBuild(t, tree, commit, fragments("CONFIG_A=y\n")); !test.want(err) {
				t.Errorf("%s: error %v and failure %+v", test.name, err, b.failure)
			}
		}
		if entries, err := filepath.Glob(filepath.Join(cache, "kernels", "*")); err != nil || len(entries) != 0 {
			t.Errorf("%s: left in the cache: %v %v", test.name, entries, err)
		}
	}
}

func TestMissingTool(t *testing.T) {
	r := newRepo(t)
	tree := open(t, t.TempDir(), r.dir)
	bin := t.TempDir()
	for _, tool := range buildTools {
		if tool != "flex" {
			if err := os.Symlink("/usr/bin/"+tool, filepath.Join(bin, tool)); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("PATH", bin)
	_, err := tryBuild(t, tree, "HEAD", fragments("CONFIG_A=y\n"))
	var missing *MissingError
	if !errors.As(err, &missing) || missing.Tool != "flex" || !strings.Contains(err.Error(), "flex is not installed") {
		t.Errorf("error %v, want a MissingError for flex", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := OpenTree(t.Context(), t.TempDir(), r.dir); !errors.As(err, &missing) || missing.Tool != "git" {
		t.Errorf("OpenTree without git: error %v, want a MissingError for git", err)
	}
}

func TestFailures(t *testing.T) {
	r := newRepo(t)
	for _, test := range []struct{ name, file, content, step, line string }{
		{"kconfig", "KCONFIG_BROKEN", "", "config", "init/Kconfig:7: syntax error"},
		{"no such header", "src/a.c", "#include \"gone.h\"\n", "compile", "src/a.c:1:10: fatal error: gone.h: No such file or directory"},
		{"own mistake", "HOOK", "frobnicate\n", "compile", "./HOOK: 1: frobnicate: not found"},
		{"linker", "HOOK", "echo 'warning: x'; echo 'ld: a.o: in function b:'; echo 'c.c:(.text+0x5): undefined reference to `d'\"'\"; exit 1\n", "compile", "c.c:(.text+0x5): undefined reference to `d'"},
		{"no image", "Makefile", fakeMakefile + "\nbzImage: nothing\nnothing:\n\t@echo nothing > header.bin\n", "compile", "read kernel bzImage: neither a bzImage nor an ELF vmlinux"},
		{"make itself", "Makefile", "allnoconfig:\n", "config", "make allnoconfig made no configuration"},
		{"no rule", "Makefile", "all:\n", "config", "make: *** No rule to make target 'allnoconfig'.  Stop."},
	} {
		commit := r.change(test.name, test.file, test.content)
		b := build(t, open(t, t.TempDir(), r.dir), commit, fragments("CONFIG_A=y\n"))
		if b.failure == nil || b.failure.Step != test.step || !strings.HasPrefix(b.failure.Line, test.line) {
			t.Errorf("%s: failure %+v, want %s: %s", test.name, b.failure, test.step, test.line)
		}
		r.git("reset", "-q", "--hard", "HEAD~1")
	}
}

// A failure that may be a stale object's fault is tried again from nothing.
func TestStaleObject(t *testing.T) {
	r := newRepo(t)
	first := r.git("rev-parse", "HEAD")
	tree := open(t, t.TempDir(), r.dir)
	o := fragments("CONFIG_A=y\n")
	build(t, tree, first, o)
	// make believes it; whoever reads it does not.
	if err := os.WriteFile(filepath.Join(tree.base, "src/src/a.o"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	hooked := r.change("a hook that looks", "HOOK", "test -s src/a.o || { echo 'ld: src/a.o: file not recognized'; exit 1; }\n")
	b := build(t, tree, hooked, o)
	if b.failure != nil {
		t.Fatalf("the stale object was believed: %+v", b.failure)
	}
	b.compiled(t, "src/a.o", "src/b.o", "src/c.o")
}

func TestDamagedEntryIsRebuilt(t *testing.T) {
	r := newRepo(t)
	tree := open(t, t.TempDir(), r.dir)
	o := fragments("CONFIG_A=y\n")
	k := build(t, tree, "HEAD", o)
	for _, path := range []string{k.Image, k.Config, k.SystemMap, k.Log, filepath.Join(filepath.Dir(k.Image), "meta.json")} {
		data := read(t, path)
		if len(data) == 0 {
			data = []byte("\x01")
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		again := build(t, tree, "HEAD", o)
		if again.cached || again.Digest != k.Digest {
			t.Errorf("with a flipped bit in %s: cached %v, digest %s", filepath.Base(path), again.cached, again.Digest)
		}
		if third := build(t, tree, "HEAD", o); !third.cached {
			t.Errorf("%s: the repaired entry is not used", filepath.Base(path))
		}
	}
}

func TestNewToolchainStartsFromNothing(t *testing.T) {
	r := newRepo(t)
	first := r.git("rev-parse", "HEAD")
	second := r.change("docs", "README", "more\n")
	tree := open(t, t.TempDir(), r.dir)
	o := fragments("CONFIG_A=y\n")
	build(t, tree, first, o)
	if err := os.WriteFile(filepath.Join(tree.base, "state.json"), []byte(`{"toolchain":["gcc 1"],"full":3}`), 0o644); err != nil {
		t.Fatal(err)
	}
	build(t, tree, second, o).compiled(t, "src/a.o", "src/b.o", "src/c.o")
}

func TestNoFragments(t *testing.T) {
	r := newRepo(t)
	if _, err := tryBuild(t, open(t, t.TempDir(), r.dir), "HEAD", BuildOptions{}); err == nil || !strings.Contains(err.Error(), "no configuration") {
		t.Errorf("error %v", err)
	}
}

// A second lab says who it waits for, and finds the kernel made.
func TestBuildWaitsForTheOther(t *testing.T) {
	r := newRepo(t)
	cache := t.TempDir()
	tree := open(t, cache, r.dir)
	lock, err := lockFile(t.Context(), filepath.Join(tree.base, "lock"), "process 1 (lab bisect)", nil)
	if err != nil {
		t.Fatal(err)
	}
	o := fragments("CONFIG_A=y\n")
	said := ""
	o.Progress = func(line string, objects, total int) {
		if said == "" {
			said = line
			if err := lock.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	build(t, tree, "HEAD", o)
	if !strings.Contains(said, "in use by process 1 (lab bisect)") {
		t.Errorf("it says %q", said)
	}

	// And it gives up when it is told to.
	if lock, err = lockFile(t.Context(), filepath.Join(tree.base, "lock"), "process 2", nil); err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	ctx, cancel := context.WithCancel(t.Context())
	o = fragments("CONFIG_A=n\n")
	o.Progress = func(string, int, int) { cancel() }
	if _, _, _, err := tree.Build(ctx, "HEAD", o); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "process 2") {
		t.Errorf("error %v, want cancelled while waiting for process 2", err)
	}
}
