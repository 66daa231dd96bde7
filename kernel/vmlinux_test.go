package kernel

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestVmlinuxOfCommit: it is that of the very kernel, of a commit whose objects are gone
// from the work tree too, and another kernel's is refused.
func TestVmlinuxOfCommit(t *testing.T) {
	r := newRepo(t)
	r.write(map[string]string{"HOOK": "cat src/*.o > vmlinux\n"})
	first := r.commit("hook")
	second := r.change("second", "src/a.c", "int another(void) { return 2; }\n")
	tree := open(t, t.TempDir(), r.dir)
	o := fragments("CONFIG_A=y\n")
	kernels := map[string]string{}
	for _, c := range []string{first, second} {
		kernels[c] = build(t, tree, c, o).Digest
	}
	for _, c := range []string{first, second} {
		file := filepath.Join(t.TempDir(), "vmlinux")
		if err := tree.Vmlinux(t.Context(), c, o, kernels[c], file); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(read(t, file)), "another"); got != (c == second) {
			t.Errorf("the vmlinux of %.12s is another commit's", c)
		}
		if err := tree.Vmlinux(t.Context(), c, o, kernels[c], file); err == nil || !strings.Contains(err.Error(), "file exists") {
			t.Errorf("over a file: %v", err)
		}
	}
	err := tree.Vmlinux(t.Context(), first, o, kernels[second], filepath.Join(t.TempDir(), "vmlinux"))
	if err == nil || !strings.Contains(err.Error(), "it builds to another kernel now: "+kernels[first]) {
		t.Errorf("of another kernel: %v", err)
	}
}
