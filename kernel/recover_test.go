package kernel

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be a lab that builds, to be killed.
func TestMain(m *testing.M) {
	Dispatch()
	if cache := os.Getenv("KERNEL_TEST_BUILD"); cache != "" {
		o := fragments("CONFIG_A=y\n")
		tree, err := OpenTree(context.Background(), cache, os.Getenv("KERNEL_TEST_REPO"))
		if image := os.Getenv("KERNEL_TEST_IMAGE"); err == nil && image != "" {
			o.Toolchain, err = OpenToolchain(context.Background(), cache, ToolchainImage{Digest: image, Env: []string{"PATH=/opt/tiny:/bin"}})
			o.Toolchain.room.way = way(os.Getenv("KERNEL_TEST_WAY"))
		}
		if err == nil {
			_, _, _, err = tree.Build(context.Background(), "HEAD", o)
		}
		if err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// blockingRepo is a repository whose build says on one FIFO that it runs and
// then waits on another for ever.
func blockingRepo(t *testing.T) (r repo, started string) {
	r = newRepo(t)
	started = fifo(t)
	r.change("blocks", "HOOK", "echo > "+started+"\nexec cat "+fifo(t)+"\n")
	return r, started
}

// locked reports whether somebody, a child of a dead lab for one, holds the
// work tree.
func locked(t *testing.T, tree *Tree) bool {
	t.Helper()
	f, err := os.Open(filepath.Join(tree.base, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}

func TestCancelKillsTheBuild(t *testing.T) {
	r, started := blockingRepo(t)
	tree := open(t, t.TempDir(), r.dir)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the user had enough")
	go func() {
		if _, err := os.ReadFile(started); err != nil {
			t.Error(err)
		}
		cancel(why)
	}()
	_, _, _, err := tree.Build(ctx, "HEAD", fragments("CONFIG_A=y\n"))
	if !errors.Is(err, why) || errors.Is(err, ErrInterrupted) {
		t.Errorf("error %v, want %v alone", err, why)
	}
	if locked(t, tree) {
		t.Error("something of the build is still alive")
	}
	// make had the time to clean up: what was compiled is used.
	r.git("rm", "-q", "HOOK")
	build(t, tree, r.commit("does not block"), fragments("CONFIG_A=y\n")).compiled(t)
}

func TestKilledLab(t *testing.T) {
	r, started := blockingRepo(t)
	cache := t.TempDir()
	lab := exec.Command(os.Args[0])
	lab.Env = append(os.Environ(), "KERNEL_TEST_BUILD="+cache, "KERNEL_TEST_REPO="+r.dir)
	lab.Stderr = os.Stderr
	if err := lab.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(started); err != nil {
		t.Fatal(err)
	}
	if err := lab.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := lab.Wait(); err == nil {
		t.Fatal("the killed lab ended well")
	}
	tree := open(t, cache, r.dir)
	// The lock comes free when the last process of the build is gone.
	r.git("rm", "-q", "HOOK")
	b := build(t, tree, r.commit("does not block"), fragments("CONFIG_A=y\n"))
	if b.failure != nil {
		t.Fatalf("after a killed build: %+v", b.failure)
	}
	b.compiled(t, "src/a.o", "src/b.o", "src/c.o")
}

// age makes everything in the work tree that much older.
func age(t *testing.T, dir string, by time.Duration) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		when := info.ModTime().Add(-by)
		return os.Chtimes(path, when, when)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRecover(t *testing.T) {
	r := newRepo(t)
	first := r.git("rev-parse", "HEAD")
	r.write(map[string]string{"HOOK": "kill -9 $PPID\n"})
	killed := r.change("killed while it compiles b", "src/b.c", "int b(void) { return 2; }\n")
	r.git("rm", "-q", "HOOK")
	fixed := r.commit("not killed")
	o := fragments("CONFIG_A=y\n")
	all := []string{"src/a.o", "src/b.o", "src/c.o"}

	prepare := func(t *testing.T) *Tree {
		tree := open(t, t.TempDir(), r.dir)
		build(t, tree, first, o).compiled(t, all...)
		age(t, filepath.Join(tree.base, "src"), time.Hour)
		return tree
	}
	kill := func(t *testing.T, tree *Tree) {
		if b, err := tryBuild(t, tree, killed, o); !errors.Is(err, ErrInterrupted) {
			t.Fatalf("error %v and %+v, want ErrInterrupted", err, b)
		}
	}
	t.Run("killed make", func(t *testing.T) {
		tree := prepare(t)
		kill(t, tree)
		// b.o cannot be believed; what was there before can.
		build(t, tree, fixed, o).compiled(t, "src/b.o")
	})
	t.Run("crashed host", func(t *testing.T) {
		tree := prepare(t)
		kill(t, tree)
		if err := os.WriteFile(filepath.Join(tree.base, "building"), []byte(compiling+" another boot"), 0o644); err != nil {
			t.Fatal(err)
		}
		build(t, tree, fixed, o).compiled(t, all...)
	})
	t.Run("killed checkout", func(t *testing.T) {
		tree := prepare(t)
		if err := (&workTree{Tree: tree}).mark(checkingOut); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{
			"git/index.lock": "", "git/HEAD.lock": "", // git's
			"src/src/z.c":    "stray\n", // of a commit that was being checked out
			"src/header.bin": "half",    // so is this
		} {
			if err := os.WriteFile(filepath.Join(tree.base, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		b := build(t, tree, fixed, o)
		b.compiled(t, "src/b.o")
		if b.Release != "6.1.0-fake" {
			t.Errorf("release %q", b.Release)
		}
		for _, name := range []string{"src/src/z.c", "src/.stray"} {
			if _, err := os.Stat(filepath.Join(tree.base, name)); err == nil {
				t.Errorf("%s is still there", name)
			}
		}
	})
	for name, damage := range map[string]func(tree *Tree) error{
		"damaged index": func(tree *Tree) error {
			return os.WriteFile(filepath.Join(tree.base, "git/index"), []byte("DIRC?"), 0o644)
		},
		"no index":     func(tree *Tree) error { return os.Remove(filepath.Join(tree.base, "git/index")) },
		"no work tree": func(tree *Tree) error { return os.RemoveAll(filepath.Join(tree.base, "src")) },
		"damaged state": func(tree *Tree) error {
			return os.WriteFile(filepath.Join(tree.base, "state.json"), []byte("{"), 0o644)
		},
	} {
		t.Run(name, func(t *testing.T) {
			tree := prepare(t)
			if err := damage(tree); err != nil {
				t.Fatal(err)
			}
			if b := build(t, tree, fixed, o); b.failure != nil || b.Release != "6.1.0-fake" {
				t.Errorf("%+v, failure %+v", b.Kernel, b.failure)
			}
		})
	}
	t.Run("no place at all", func(t *testing.T) {
		tree := prepare(t)
		if err := os.RemoveAll(filepath.Dir(tree.trees)); err != nil {
			t.Fatal(err)
		}
		cache := filepath.Dir(tree.trees)
		build(t, open(t, cache, r.dir), fixed, o).compiled(t, all...)
	})
}

func TestBuildLogProgress(t *testing.T) {
	var seen []int
	l := &buildLog{w: io.Discard, src: "/src", total: 2, progress: func(line string, objects, total int) {
		seen = append(seen, objects, total)
	}}
	text := "  CC      a.o\n  LD      b\n  CC [M]  c.o\r\n\n  AS      d.o\n/src/e.c:1:2: error: what\npartial"
	for _, part := range strings.SplitAfter(text, "C") {
		if n, err := l.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	want := []int{1, 2, 1, 2, 2, 2, 3, 3, 3, 3}
	if len(seen) != len(want) {
		t.Fatalf("progress %v, want %v", seen, want)
	}
	for i := range want {
		if seen[i] != want[i] {
			t.Fatalf("progress %v, want %v", seen, want)
		}
	}
	if line, source := l.reason(); line != "e.c:1:2: error: what" || !source {
		t.Errorf("reason %q, %v", line, source)
	}
}
