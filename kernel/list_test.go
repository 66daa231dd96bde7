package kernel

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// aged makes an entry look unused for so long.
func aged(t *testing.T, dir string, age time.Duration) {
	t.Helper()
	when := time.Now().Add(-age)
	if err := os.Chtimes(filepath.Join(dir, usedFile), when, when); err != nil {
		t.Fatal(err)
	}
}

func TestListAndFree(t *testing.T) {
	r := newRepo(t)
	cache := t.TempDir()
	tree := open(t, cache, r.dir)
	k := build(t, tree, "HEAD", fragments("CONFIG_A=y\n"))
	broken := r.change("broken", "src/a.c", "int a(void) { return gone; }\n")
	bad := build(t, tree, broken, fragments("CONFIG_A=y\n"))
	kdir, bdir := filepath.Dir(k.Image), filepath.Dir(bad.failure.Log)
	damaged := filepath.Join(cache, "kernels", "damaged")
	if err := os.MkdirAll(damaged, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(damaged, "meta.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	aged(t, kdir, 50*time.Hour)
	aged(t, bdir, time.Hour)

	list, err := List(t.Context(), cache)
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	if list[0].Dir != damaged || !list[0].Damaged {
		t.Errorf("the damaged one: %+v", list[0])
	}
	if c := list[1]; c.Dir != bdir || !strings.HasPrefix(c.Failure, "src/a.c:1:") {
		t.Errorf("the one that does not build: %+v", c)
	}
	if c := list[2]; c.Dir != kdir || c.Commit != k.Commit || c.Release != "6.1.0-fake" || c.Size < 1024 || len(c.Config) != 12 {
		t.Errorf("the kernel: %+v", c)
	}

	free := func(o FreeOptions) Freed {
		t.Helper()
		freed, err := Free(t.Context(), cache, o)
		if err != nil {
			t.Fatal(err)
		}
		return freed
	}
	// k is in use: it is reachable.
	if freed := free(FreeOptions{Older: 48 * time.Hour}); len(freed.Kernels) != 0 || len(freed.InUse) != 1 || freed.InUse[0] != kdir {
		t.Errorf("in use: %+v", freed)
	}
	runtime.KeepAlive(k)
	if err := k.held.Close(); err != nil {
		t.Fatal(err)
	}
	if freed := free(FreeOptions{Older: 48 * time.Hour, DryRun: true}); len(freed.Kernels) != 1 || freed.Size < 1024 {
		t.Errorf("dry run: %+v", freed)
	}
	if _, _, ok := loadEntry(bdir); !ok {
		t.Error("a failure does not load")
	}
	aged(t, bdir, time.Hour)
	freed := free(FreeOptions{Older: 48 * time.Hour})
	if _, err := os.Stat(kdir); !os.IsNotExist(err) || len(freed.Kernels) != 1 {
		t.Errorf("freed: %+v, %v", freed, err)
	}
	if again := build(t, tree, "HEAD~1", fragments("CONFIG_A=y\n")); again.cached || again.Digest != k.Digest {
		t.Errorf("built again: %+v", again)
	} else if err := again.held.Close(); err != nil {
		t.Fatal(err)
	}
	// The longest unused goes first, and no more than need be.
	list, err = List(t.Context(), cache)
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	freed = free(FreeOptions{Limit: true, Keep: list[0].Size + list[1].Size})
	if len(freed.Kernels) != 1 || freed.Kernels[0].Dir != list[2].Dir || freed.Kept != list[0].Size+list[1].Size {
		t.Errorf("by size: %+v", freed)
	}
	// A work tree goes when it is asked for and nobody builds in it.
	lock, err := lockFile(t.Context(), filepath.Join(tree.base, "lock"), "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	if freed := free(FreeOptions{Trees: true}); len(freed.Trees) != 0 || len(freed.InUse) != 1 {
		t.Errorf("a tree in use: %+v", freed)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if freed := free(FreeOptions{Trees: true, Limit: true}); len(freed.Trees) != 1 || freed.Kept != 0 {
		t.Errorf("all: %+v", freed)
	}
	if left, err := os.ReadDir(filepath.Join(cache, "kernels")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	build(t, tree, "HEAD~1", fragments("CONFIG_A=y\n")).compiled(t, "src/a.o", "src/b.o", "src/c.o")
}

// An entry that is being freed is not there.
func TestLoadEntryBeingFreed(t *testing.T) {
	r := newRepo(t)
	tree := open(t, t.TempDir(), r.dir)
	k := build(t, tree, "HEAD", fragments("CONFIG_A=y\n"))
	if err := k.held.Close(); err != nil {
		t.Fatal(err)
	}
	f, free, err := tryLock(filepath.Join(filepath.Dir(k.Image), usedFile))
	if err != nil || !free {
		t.Fatalf("%v, %v", free, err)
	}
	if _, _, ok := loadEntry(filepath.Dir(k.Image)); ok {
		t.Error("it loads")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, ok := loadEntry(filepath.Dir(k.Image)); !ok {
		t.Error("it does not load")
	}
}
