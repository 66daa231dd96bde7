package kernel

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lab/kernel/kconfig"
	"lab/lab/debiantest"
)

func e2e(t *testing.T) {
	t.Helper()
	if os.Getenv("LAB_E2E") == "" {
		t.Skip("set LAB_E2E=1: builds real kernels")
	}
}

// realRepo makes a git repository of the distribution's kernel source, without
// the half of it that an x86 kernel has no use for.
func realRepo(t testing.TB) repo {
	t.Helper()
	sources, err := filepath.Glob("/usr/src/linux-source-*.tar.xz")
	if err != nil || len(sources) == 0 {
		t.Fatal("linux-source not installed: run lab doctor --install")
	}
	slices.Sort(sources)
	dir := t.TempDir()
	args := []string{"-xf", sources[len(sources)-1], "-C", dir, "--strip-components=1"}
	for _, other := range []string{"Documentation/[a-z]*", "tools/testing", "drivers/gpu/drm/amd/include"} {
		args = append(args, "--exclude=linux-source-*/"+other)
	}
	// Neither has a kernel of the smallest configuration, which Kconfig knows more of.
	for _, other := range []string{"drivers/gpu", "drivers/infiniband", "drivers/media", "drivers/net", "drivers/scsi", "drivers/staging", "sound"} {
		for _, ending := range []string{"c", "h"} {
			args = append(args, "--exclude=linux-source-*/"+other+"/*."+ending)
		}
	}
	// Of the other architectures Kconfig reads some Kconfig files all the same.
	for _, arch := range []string{"arm", "arm64", "mips", "powerpc", "sh", "sparc", "m68k", "s390", "riscv", "parisc"} {
		for _, ending := range []string{"c", "h", "S", "dts", "dtsi"} {
			args = append(args, "--exclude=linux-source-*/arch/"+arch+"/*."+ending)
		}
	}
	run(t, dir, "tar", args...)
	// Debian's .gitignore ends with a line that ignores everything.
	ignore := filepath.Join(dir, ".gitignore")
	upstream, _, _ := strings.Cut(string(read(t, ignore)), "#\n# Debian packaging")
	r := repo{t, dir}
	r.write(map[string]string{".gitignore": upstream})
	r.git("init", "-q", "-b", "main")
	// Straight into one pack, uncompressed: it is read a few times.
	r.git("-c", "core.bigFileThreshold=1", "-c", "core.compression=0", "add", "-f", ".")
	r.commit("linux")
	return r
}

// A real kernel, of the smallest configuration, built in two directories: the
// same bytes. Then one changed file, and a change that breaks the build.
func TestRealKernel(t *testing.T) {
	e2e(t)
	r := realRepo(t)
	t.Log("the repository is made")
	first := r.git("rev-parse", "HEAD")
	source := filepath.Join(r.dir, "kernel/panic.c")
	text := read(t, source)
	// Files that an x86 kernel of the smallest configuration has no use for.
	for _, name := range []string{"drivers/usb/core/hub.c", "include/linux/usb.h", "arch/x86/kvm/x86.c", "arch/x86/crypto/sha256-avx2-asm.S"} {
		file := filepath.Join(r.dir, name)
		r.write(map[string]string{name: string(read(t, file)) + "\n#error this is compiled\n"})
	}
	r.write(map[string]string{"Documentation/lab.rst": "documented\n", "arch/arm64/lib/lab.c": "#error foreign\n"})
	docs := r.commit("nothing that is compiled")
	changed := r.change("changed", "kernel/panic.c", string(text)+"\nint lab_was_here(void);\nint lab_was_here(void) { return panic_timeout; }\n")
	broken := r.change("broken", "kernel/panic.c", string(text)+"\nint lab_was_here(void) { return no_such_thing; }\n")

	asked := "CONFIG_64BIT=y\nCONFIG_PRINTK=y\nCONFIG_NO_SUCH_OPTION=y\nCONFIG_LOCALVERSION=\"-lab\"\n"
	one := open(t, t.TempDir(), r.dir)
	k1 := build(t, one, first, fragments(asked))
	if k1.failure != nil {
		t.Fatalf("%+v", k1.failure)
	}
	t.Logf("from nothing: %d objects, release %s, %s", len(k1.objects), k1.Release, k1.Compiler)
	if !strings.HasSuffix(k1.Release, "-lab") || !slices.Equal(k1.Missing, []string{"CONFIG_NO_SUCH_OPTION: asked for y, is absent: this tree has no such symbol"}) {
		t.Errorf("release %s, missing %q", k1.Release, k1.Missing)
	}
	if out := run(t, one.base, "git", "--git-dir=git", "--work-tree=src", "status", "--porcelain"); out != "" {
		t.Errorf("the build leaves files that git clean would take away:\n%s", out)
	}
	k2 := build(t, open(t, t.TempDir(), r.dir), first, fragments(asked))
	t.Log("and once more, elsewhere")
	if !bytes.Equal(read(t, k1.Image), read(t, k2.Image)) || !bytes.Equal(read(t, k1.SystemMap), read(t, k2.SystemMap)) || k1.Digest != k2.Digest {
		t.Errorf("built twice: %s and %s", k1.Digest, k2.Digest)
	}

	k3 := build(t, one, docs, fragments(asked))
	if k3.failure != nil || k3.Digest != k1.Digest || len(k3.objects) > 3 {
		t.Errorf("a commit that changes no source: %s, was %s; compiled %q", k3.Digest, k1.Digest, k3.objects)
	}
	mayMatter := func(to string) string {
		t.Helper()
		f, err := one.Footprint(t.Context(), first, fragments(asked))
		if err != nil || f.Len() < 1000 || f.Len() > 10000 {
			t.Fatalf("the footprint has %d files, %v", f.Len(), err)
		}
		changes, err := one.Diff(t.Context(), first, to)
		if err != nil || len(changes) == 0 {
			t.Fatal(changes, err)
		}
		c, _, _ := f.Matters(changes)
		return c.Path
	}
	if p := mayMatter(docs); p != "" {
		t.Errorf("%s may matter, and the kernel has the same bytes", p)
	}
	if p := mayMatter(changed); p != "kernel/panic.c" {
		t.Errorf("the first that may matter is %q, want kernel/panic.c", p)
	}
	if f, err := one.Footprint(t.Context(), first, fragments(asked+"CONFIG_AUDIT=y\n")); f != nil || err != nil {
		t.Errorf("a configuration that was not built has a footprint: %v", err)
	}
	k4 := build(t, one, changed, fragments(asked))
	if k4.Digest == k1.Digest || len(k4.objects) == 0 || len(k4.objects) > 6 || !slices.Contains(k4.objects, "kernel/panic.o") {
		t.Errorf("one file changed: %s, compiled %q", k4.Digest, k4.objects)
	}
	if !bytes.Contains(read(t, k4.SystemMap), []byte("lab_was_here")) {
		t.Error("System.map does not know the new function")
	}
	k5 := build(t, one, broken, fragments(asked))
	if k5.failure == nil || k5.failure.Step != "compile" || !strings.HasPrefix(k5.failure.Line, "kernel/panic.c:") || !strings.Contains(k5.failure.Line, "no_such_thing") {
		t.Errorf("a commit that does not compile: %+v", k5.failure)
	}

	// Back to the first commit, from here and with nothing cached: the same
	// bytes as from nothing.
	if err := os.RemoveAll(filepath.Dir(k1.Image)); err != nil {
		t.Fatal(err)
	}
	k6 := build(t, one, first, fragments(asked))
	if k6.cached || k6.Digest != k1.Digest {
		t.Errorf("back at the first commit: cached %v, %s, was %s", k6.cached, k6.Digest, k1.Digest)
	}
	t.Logf("back at the first commit: %q", k6.objects)

	// The builtin fragments keep all that they ask for, on their own or on top
	// of those that boot.
	for _, names := range [][]string{{"container"}, {"tiny"}, {"container", "selinux"}, {"container", "debug"}, {"tiny", "selinux"}, {"tiny", "debug"}} {
		lost, lacks := configured(t, one, first, names...)
		if len(lost) != 0 || len(lacks) != 0 {
			t.Errorf("fragments %s: lost %q, lacks %q", names, lost, lacks)
		}
	}
	// What is lost is explained by the real tree.
	tiny, _ := kconfig.Builtin("tiny")
	r2, _, err := one.Configure(t.Context(), first, BuildOptions{Fragments: []kconfig.Fragment{tiny, {Name: "more", Data: []byte("CONFIG_NF_TABLES=y\nCONFIG_PREEMPT=y\n")}}})
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, d := range r2.Lost {
		said = append(said, d.String())
	}
	if !slices.Equal(said, []string{"CONFIG_NF_TABLES: asked for y, is absent: it depends on NET && NETFILTER && INET && NETFILTER, and NETFILTER is not set", "CONFIG_PREEMPT_NONE: asked for y, is n: of its choice PREEMPT is taken"}) {
		t.Errorf("lost: %q", said)
	}
}

// configured has Kconfig make a whole configuration of builtin fragments.
func configured(t *testing.T, tree *Tree, commit string, names ...string) (lost []kconfig.Difference, lacks []string) {
	t.Helper()
	var o BuildOptions
	for _, name := range names {
		f, ok := kconfig.Builtin(name)
		if !ok {
			t.Fatalf("no fragment %s", name)
		}
		o.Fragments = append(o.Fragments, f)
	}
	r, failure, err := tree.Configure(t.Context(), commit, o)
	if err != nil || failure != nil {
		t.Fatalf("%v, %+v", err, failure)
	}
	resolved, err := kconfig.Parse(bytes.NewReader(r.Config))
	if err != nil {
		t.Fatal(err)
	}
	return r.Lost, kconfig.Guest(resolved)
}

// The distribution's own packages: the metapackage says which one has the
// kernel, and that one has all that lab's guest needs.
func TestRealPackage(t *testing.T) {
	e2e(t)
	cache := t.TempDir()
	_, err := FromPackage(t.Context(), cache, debiantest.Package(t, "linux-image-cloud-amd64"), Modules{})
	if err == nil {
		t.Fatal("the metapackage has a kernel")
	}
	_, name, ok := strings.Cut(err.Error(), "holds no kernel itself; it depends on ")
	if !ok {
		t.Fatalf("error %v, want one that names a package", err)
	}
	name, _, _ = strings.Cut(name, " ")
	path := debiantest.Package(t, name)
	k, err := FromPackage(t.Context(), cache, path, Modules{})
	if err != nil {
		t.Fatal(err)
	}
	if "linux-image-"+k.Release != name || !strings.HasPrefix(k.Source, "package "+name+" ") {
		t.Errorf("package %s: release %s, source %s", name, k.Release, k.Source)
	}
	c, modules, err := k.Configuration()
	if err != nil {
		t.Fatal(err)
	}
	if lacks := kconfig.Guest(c, modules...); len(lacks) != 0 {
		t.Errorf("it lacks %q", lacks)
	}
	if len(k.Modules) == 0 {
		t.Error("no modules, but Debian's virtio drivers are modules")
	}
	loaded := map[string]bool{}
	for _, m := range k.Modules {
		depends, _, err := readModinfo(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range depends {
			if !loaded[d] {
				t.Errorf("%s is loaded before %s, on which it depends", filepath.Base(m), d)
			}
		}
		loaded[moduleName(m)] = true
	}
	for _, name := range wanted[:2] {
		if !loaded[name] {
			t.Errorf("%s is not among the modules %q", name, k.Modules)
		}
	}
	again, err := FromPackage(t.Context(), cache, path, Modules{})
	if err != nil || again.Image != k.Image {
		t.Errorf("the second time: %+v, %v", again, err)
	}
}
