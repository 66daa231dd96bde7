package kernel

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// withStandIn puts a ccache on the PATH that notes how it is called and runs the
// compiler whose name it has, as ccache does where it knows nothing.
func withStandIn(t *testing.T) (calls func() []string) {
	t.Helper()
	dir := t.TempDir()
	note := filepath.Join(dir, "calls")
	script := `#!/bin/sh
echo "${0##*/} $CCACHE_DIR $CCACHE_COMPILERCHECK $*" >> ` + note + `
case $0 in */gcc) ;; *) exit 9 ;; esac
PATH=${PATH#*:}
exec gcc "$@"
`
	if err := os.WriteFile(filepath.Join(dir, "ccache"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	return func() []string {
		data, err := os.ReadFile(note)
		if err != nil {
			return nil
		}
		return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	}
}

// Where ccache is installed it is the compiler, under the compiler's name and with
// a place of its own; the kernel and its key in the cache are the same without.
func TestCcache(t *testing.T) {
	r := newRepo(t)
	head := r.git("rev-parse", "HEAD")
	o := fragments("CONFIG_A=y\n")
	without := o
	without.Recompile = true

	calls := withStandIn(t)
	plain := build(t, open(t, t.TempDir(), r.dir), head, without)
	if got := calls(); got != nil {
		t.Errorf("told to compile: %q", got)
	}
	cache := t.TempDir()
	tree := open(t, cache, r.dir)
	b := build(t, tree, head, o)
	b.compiled(t, "src/a.o", "src/b.o", "src/c.o")
	got := calls()
	if len(got) != 3 || !strings.HasPrefix(got[0], "gcc "+filepath.Join(cache, "ccache/objects")+" string:") || !slices.ContainsFunc(got, func(s string) bool { return strings.HasSuffix(s, "-o src/a.o src/a.c") }) {
		t.Errorf("called: %q", got)
	}
	if b.Digest != plain.Digest || filepath.Base(filepath.Dir(b.Image)) != filepath.Base(filepath.Dir(plain.Image)) {
		t.Errorf("with ccache %s in %s, without %s in %s", b.Digest, b.Image, plain.Digest, plain.Image)
	}
	if _, err := Verify(t.Context(), cache, r.dir, head, o); err != nil || len(calls()) != 3 {
		t.Errorf("verified with ccache, which answers for the compiler: %q, %v", calls(), err)
	}

	freed, err := Free(t.Context(), cache, FreeOptions{Trees: true})
	if err != nil || !slices.Contains(freed.Trees, tree.base) {
		t.Errorf("%+v, %v", freed, err)
	}
	if err := os.MkdirAll(filepath.Join(cache, "ccache/objects/0"), 0o755); err != nil {
		t.Fatal(err)
	}
	freed, err = Free(t.Context(), cache, FreeOptions{Trees: true})
	if err != nil || freed.Objects != filepath.Join(cache, "ccache/objects") {
		t.Errorf("%+v, %v", freed, err)
	}
	if _, err := os.Stat(filepath.Join(cache, "ccache/objects")); err == nil {
		t.Error("ccache's objects are still there")
	}
}
