package kernel

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lab/kernel/kconfig"
)

// spent is what a step took.
type spent struct{ wall, cpu time.Duration }

// measure counts the CPU time of this process and of all its children.
func measure(do func()) spent {
	used := func() (d time.Duration) {
		for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
			var u syscall.Rusage
			if syscall.Getrusage(who, &u) == nil {
				d += time.Duration(u.Utime.Nano() + u.Stime.Nano())
			}
		}
		return d
	}
	start, before := time.Now(), used()
	do()
	return spent{time.Since(start), used() - before}
}

// BenchmarkStep compares one step of a bisect, which is a checkout and a build,
// with git checkout, make olddefconfig and make bzImage in another tree of the
// same content and configuration, in turns. Each step starts from where the base
// was built. It makes two kernels from nothing first.
//
//	LAB_E2E=1 go test ./kernel -run '^$' -bench Step -benchtime 1x -v
func BenchmarkStep(b *testing.B) {
	if os.Getenv("LAB_E2E") == "" {
		b.Skip("set LAB_E2E=1: builds real kernels")
	}
	r := realRepo(b)
	base := r.git("rev-parse", "HEAD")
	commit := func(name, text string) string {
		old := string(read(b, filepath.Join(r.dir, name)))
		hash := r.change(name, name, old+text)
		r.git("checkout", "-q", "--detach", base)
		return hash
	}
	steps := []struct{ what, commit string }{
		{"nothing compiled", commit("COPYING", "\n")},
		{"one .c", commit("kernel/panic.c", "\nint lab_step(void);\nint lab_step(void) { return panic_timeout; }\n")},
		{"one header", commit("include/linux/reboot.h", "\n/* a comment */\n")},
		{"a comment in Kconfig", commit("init/Kconfig", "\n# a comment\n")},
		{"an option in Kconfig", commit("init/Kconfig", "\nconfig LAB_STEP\n\tdef_bool y\n")},
		{"a Makefile", commit("kernel/Makefile", "\n# a comment\n")},
	}
	tiny, _ := kconfig.Builtin("tiny")
	o := BuildOptions{Fragments: []kconfig.Fragment{tiny}}

	plain := filepath.Join(b.TempDir(), "plain")
	run(b, r.dir, "git", "clone", "-q", "--shared", r.dir, plain)
	makeIt := func(hash string) {
		run(b, plain, "git", "checkout", "-q", "--detach", hash)
		for _, args := range [][]string{{"olddefconfig"}, {"-j" + fmt.Sprint(jobs(o)), "bzImage"}} {
			c := exec.Command("make", append([]string{"-s"}, args...)...)
			c.Dir, c.Env = plain, append(os.Environ(), "LOCALVERSION=", "KBUILD_BUILD_TIMESTAMP=0")
			if out, err := c.CombinedOutput(); err != nil {
				b.Fatalf("make %v: %v\n%s", args, err, out)
			}
		}
	}
	tree := open(b, b.TempDir(), r.dir)
	labIt := func(hash string) Kernel {
		k, failure, cached, err := tree.Build(b.Context(), hash, o)
		if err != nil || failure != nil || cached {
			b.Fatalf("%v, %+v, cached %v", err, failure, cached)
		}
		return k
	}
	first := labIt(base)
	config := read(b, first.Config)
	if err := os.WriteFile(filepath.Join(plain, ".config"), config, 0o644); err != nil {
		b.Fatal(err)
	}
	makeIt(base)
	if resolved := read(b, filepath.Join(plain, ".config")); !bytes.Equal(bytes.TrimSpace(resolved), bytes.TrimSpace(config)) {
		b.Log("the two configurations differ")
	}
	if err := first.held.Close(); err != nil {
		b.Fatal(err)
	}

	var table strings.Builder
	fmt.Fprintf(&table, "%-22s %18s %18s %14s\n", "", "lab: wall, CPU", "make: wall, CPU", "ratio")
	for b.Loop() {
		for _, step := range steps {
			var k Kernel
			theirs := measure(func() { makeIt(step.commit) })
			ours := measure(func() { k = labIt(step.commit) })
			fmt.Fprintf(&table, "%-22s %8.1f s %6.1f s %8.1f s %6.1f s %6.2f %6.2f\n", step.what,
				ours.wall.Seconds(), ours.cpu.Seconds(), theirs.wall.Seconds(), theirs.cpu.Seconds(),
				ours.wall.Seconds()/theirs.wall.Seconds(), ours.cpu.Seconds()/theirs.cpu.Seconds())
			// And back, with nothing of it in the cache.
			if err := k.held.Close(); err != nil {
				b.Fatal(err)
			}
			for _, dir := range []string{filepath.Dir(k.Image), filepath.Dir(first.Image)} {
				if err := os.RemoveAll(dir); err != nil {
					b.Fatal(err)
				}
			}
			makeIt(base)
			if first = labIt(base); first.held.Close() != nil {
				b.Fatal("not held")
			}
		}
	}
	b.Log("\n" + table.String())
}

func jobs(o BuildOptions) int { return max(o.Jobs, 2) }
