package kernel

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckout has each commit's files in the work tree: ignored ones stay, stray
// ones go, git says which commit it is, and the user's repository and the work
// tree of its kernels are left alone.
func TestCheckout(t *testing.T) {
	r := newRepo(t)
	first := r.git("rev-parse", "HEAD")
	r.git("tag", "-m", "one", "v1")
	second := r.change("second", "src/a.c", "int changed;\n")
	before := r.git("status", "--porcelain", "--ignored") + r.git("for-each-ref")
	cache := t.TempDir()
	tree, err := OpenCheckout(t.Context(), cache, r.dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	visit := func(hash string, use func(dir string)) {
		t.Helper()
		err := tree.Checkout(t.Context(), hash, nil, func(dir string, lock *os.File) error {
			if got := run(t, dir, "git", "rev-parse", "HEAD"); got != hash {
				t.Errorf("git in the work tree says %s, want %s", got, hash)
			}
			if status := run(t, dir, "git", "status", "--porcelain"); status != "" {
				t.Errorf("at %.12s the work tree is not clean: %s", hash, status)
			}
			use(dir)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var kept os.FileInfo
	visit(first, func(dir string) {
		if got := run(t, dir, "git", "describe", "--exact-match"); got != "v1" {
			t.Errorf("git describe says %s", got)
		}
		for _, name := range []string{"kept.o", "stray"} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		run(t, dir, "git", "-c", "user.name=x", "-c", "user.email=x", "commit", "-q", "--allow-empty", "-m", "of the command's")
		if kept, err = os.Stat(filepath.Join(dir, "src/b.c")); err != nil {
			t.Fatal(err)
		}
	})
	visit(second, func(dir string) {
		if _, err := os.Stat(filepath.Join(dir, "kept.o")); err != nil {
			t.Errorf("what git ignores is gone: %v", err)
		}
		if _, err := os.Stat(filepath.Join(dir, "stray")); err == nil {
			t.Error("a stray file stayed")
		}
		if data, err := os.ReadFile(filepath.Join(dir, "src/a.c")); err != nil || string(data) != "int changed;\n" {
			t.Errorf("src/a.c is %q, %v", data, err)
		}
		if now, err := os.Stat(filepath.Join(dir, "src/b.c")); err != nil || !now.ModTime().Equal(kept.ModTime()) {
			t.Errorf("src/b.c, which is the same, was written again (%v)", err)
		}
	})
	if after := r.git("status", "--porcelain", "--ignored") + r.git("for-each-ref"); after != before {
		t.Errorf("the user's repository changed from\n%s\nto\n%s", before, after)
	}
	other, err := OpenTree(t.Context(), cache, r.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if other.base == tree.base {
		t.Error("kernels are built in the same work tree")
	}
	a, errA := tree.TreeHash(t.Context(), first)
	b, errB := tree.TreeHash(t.Context(), second)
	if errors.Join(errA, errB) != nil || a == b || a != r.git("rev-parse", first+"^{tree}") {
		t.Errorf("trees %s and %s, %v, %v", a, b, errA, errB)
	}
}

// TestCheckoutAfterAnError: what was written last may be half a file, and is
// not there at the next commit. The error is the one that came.
func TestCheckoutAfterAnError(t *testing.T) {
	r := newRepo(t)
	hash := r.git("rev-parse", "HEAD")
	tree, err := OpenCheckout(t.Context(), t.TempDir(), r.dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	killed := errors.New("killed")
	err = tree.Checkout(t.Context(), hash, nil, func(dir string, lock *os.File) error {
		if err := os.WriteFile(filepath.Join(dir, "half.o"), nil, 0o644); err != nil {
			t.Error(err)
		}
		return killed
	})
	if !errors.Is(err, killed) {
		t.Fatalf("got %v", err)
	}
	err = tree.Checkout(t.Context(), hash, nil, func(dir string, lock *os.File) error {
		if _, err := os.Stat(filepath.Join(dir, "half.o")); err == nil {
			t.Error("half.o is believed")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = tree.Checkout(ctx, hash, nil, func(string, *os.File) error { t.Error("used, though nobody waits"); return nil })
	if err == nil || !strings.Contains(err.Error(), "check out") {
		t.Errorf("got %v", err)
	}
}
