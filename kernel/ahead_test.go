package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// aheadRepo has a good commit, a commit that is guessed, which changes a header
// that everything includes, and the one that is wanted instead, which changes one
// file. The guessed one's build says on a FIFO that it has come to a place, and
// stays there for as long as the other FIFO has no writer.
func aheadRepo(t *testing.T, target string) (r repo, good, guessed, wanted, started, stay string) {
	t.Helper()
	r = newRepo(t)
	good = r.git("rev-parse", "HEAD")
	started, stay = fifo(t), fifo(t)
	wait := "\t@echo > " + started + "; cat " + stay + "\n"
	r.write(map[string]string{
		"Makefile":      strings.Replace(fakeMakefile, target, target+wait, 1),
		"include/all.h": "#define ALL 2\n",
		"src/d.c":       "int d(void) { return 4; }\n",
	})
	r.git("rm", "-q", "README")
	guessed = r.commit("guessed")
	r.git("checkout", "-q", good)
	wanted = r.change("wanted", "src/b.c", "#include \"all.h\"\nint b(void) { return ALL + 1; }\n")
	return r, good, guessed, wanted, started, stay
}

// buildAhead builds a commit ahead of time, and returns when it has come to the place.
func buildAhead(t *testing.T, tree *Tree, commit, started string, o BuildOptions) (failed chan error) {
	t.Helper()
	o.Ahead = true
	failed = make(chan error, 1)
	go func() {
		_, _, _, err := tree.Build(t.Context(), commit, o)
		failed <- err
	}()
	if _, err := os.ReadFile(started); err != nil {
		t.Fatal(err)
	}
	return failed
}

func TestWrongGuessIsUndone(t *testing.T) {
	o := fragments("CONFIG_A=y\n")
	all := []string{"src/a.o", "src/b.o", "src/c.o"}
	for _, test := range []struct {
		name, place string // where the guess is cut short
		compiled    []string
	}{
		{"configuring", "allnoconfig:\n", []string{"src/b.o"}},
		{"compiled", "bzImage: $(OBJS)\n", all},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, good, guessed, wanted, started, _ := aheadRepo(t, test.place)
			tree := open(t, t.TempDir(), r.dir)
			build(t, tree, good, o).compiled(t, all...)
			age(t, filepath.Join(tree.base, "src"), time.Hour)
			failed := buildAhead(t, tree, guessed, started, o)
			b := build(t, tree, wanted, o)
			b.compiled(t, test.compiled...)
			if err := <-failed; !errors.Is(err, errWrong) {
				t.Errorf("the guess ended with %v", err)
			}
			fresh := build(t, open(t, t.TempDir(), r.dir), wanted, o)
			if b.Digest != fresh.Digest {
				t.Errorf("%s, and from nothing %s", b.Digest, fresh.Digest)
			}
			for name, want := range map[string]bool{"src/README": true, "src/src/d.c": false, "src/src/d.o": false, "building": false} {
				if _, err := os.Stat(filepath.Join(tree.base, name)); (err == nil) != want {
					t.Errorf("%s: %v, want it there: %v", name, err, want)
				}
			}
		})
	}
}

// A guess that cannot be undone, because the configuration that everything
// depends on has changed, does no harm either.
func TestWrongGuessThatStays(t *testing.T) {
	r, good, guessed, wanted, started, _ := aheadRepo(t, "bzImage: $(OBJS)\n")
	tree := open(t, t.TempDir(), r.dir)
	build(t, tree, good, fragments("CONFIG_A=y\n"))
	failed := buildAhead(t, tree, guessed, started, fragments("CONFIG_A=y\nCONFIG_B=y\n"))
	b := build(t, tree, wanted, fragments("CONFIG_A=y\n"))
	if err := <-failed; !errors.Is(err, errWrong) {
		t.Errorf("the guess ended with %v", err)
	}
	if fresh := build(t, open(t, t.TempDir(), r.dir), wanted, fragments("CONFIG_A=y\n")); b.Digest != fresh.Digest {
		t.Errorf("%s, and from nothing %s", b.Digest, fresh.Digest)
	}
}

// Whoever wants what was guessed right gets it from there, and sees how it goes.
func TestRightGuess(t *testing.T) {
	r, good, guessed, _, started, stay := aheadRepo(t, "bzImage: $(OBJS)\n")
	tree := open(t, t.TempDir(), r.dir)
	o := fragments("CONFIG_A=y\n")
	build(t, tree, good, o)
	failed := buildAhead(t, tree, guessed, started, o)
	wanted := func() bool {
		tree.guess.mu.Lock()
		defer tree.guess.mu.Unlock()
		return tree.guess.wanted
	}
	go func() {
		for !wanted() {
			runtime.Gosched()
		}
		if os.Geteuid() != 0 { // make begins again, with another priority
			if _, err := os.ReadFile(started); err != nil {
				t.Error(err)
			}
		}
		if err := os.WriteFile(stay, []byte("go on\n"), 0); err != nil {
			t.Error(err)
		}
	}()
	b := build(t, tree, guessed, o)
	if err := <-failed; err != nil {
		t.Errorf("the guess ended with %v", err)
	}
	if os.Geteuid() == 0 && !b.cached || b.failure != nil {
		t.Errorf("%+v", b)
	}
}

// A guess does not go as far as to empty the work tree.
func TestGuessThatOnlyNothingCouldTell(t *testing.T) {
	r := newRepo(t)
	good := r.git("rev-parse", "HEAD")
	broken := r.change("broken", "HOOK", "exit 1\n")
	fixed := r.change("fixed", "HOOK", "exit 0\n")
	tree := open(t, t.TempDir(), r.dir)
	o := fragments("CONFIG_A=y\n")
	build(t, tree, good, o)
	ahead := o
	ahead.Ahead = true
	if b, err := tryBuild(t, tree, broken, ahead); !errors.Is(err, errAhead) {
		t.Errorf("%+v, %v", b, err)
	}
	build(t, tree, fixed, o).compiled(t)
	if b := build(t, tree, broken, o); b.failure == nil {
		t.Errorf("%+v", b)
	}
}
