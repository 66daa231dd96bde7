package ext4

import (
	"archive/tar"
	"fmt"
	"strings"
	"testing"
)

// TestHashName compares with e2fsprogs.
func TestHashName(t *testing.T) {
	_, finish := newFS(t)
	image := finish(0)
	for _, name := range []string{"a", "abc", "abcd", "lost+found", strings.Repeat("x", 31), strings.Repeat("y", 32), strings.Repeat("z", 33), strings.Repeat("w", 255)} {
		hash, minor := testOptions.hashName(name)
		want := fmt.Sprintf("is 0x%08x (minor 0x%08x)", hash, minor)
		out := debugfs(t, image, "dx_hash -h half_md4 -s 01020304-0506-0708-090a-0b0c0d0e0f10 "+name)
		if !strings.Contains(out, want) {
			t.Errorf("hash of %q: %s, debugfs says %s", name, want, out)
		}
	}
}

// TestSplitLeaves packs names whose hashes collide across the end of a block.
func TestSplitLeaves(t *testing.T) {
	var list []hashed
	add := func(hash uint32, n int) {
		for range n {
			list = append(list, hashed{hash, 0, dirent{name: strings.Repeat("n", 244)}}) // 16 fill a block
		}
	}
	add(10, 15)
	add(20, 2) // the first leaf ends between them
	add(30, 15)
	add(40, 40) // more than two leaves of one hash
	add(50, 1)
	var got []string
	next := 0
	for _, l := range splitLeaves(list) {
		if l.first != next || l.end-l.first > 16 {
			t.Errorf("leaf of entries %d to %d comes after entry %d", l.first, l.end, next)
		}
		next = l.end
		got = append(got, fmt.Sprint(l.hash))
	}
	if next != len(list) {
		t.Errorf("leaves end at %d of %d entries", next, len(list))
	}
	if got, want := strings.Join(got, " "), "0 21 40 41 41"; got != want {
		t.Errorf("hashes of the leaves are %s, not %s", got, want)
	}
}

// TestCollidingNames has a directory of two leaves that end and begin with names
// of one and the same hash.
func TestCollidingNames(t *testing.T) {
	const perLeaf = 16
	name := func(i int) string { return fmt.Sprintf("%0244d", i) }
	byHash := make(map[uint32]int)
	var pair, fill []int
	for i := 0; pair == nil; i++ {
		hash, _ := testOptions.hashName(name(i))
		if other, ok := byHash[hash]; ok {
			pair = []int{other, i}
		}
		byHash[hash] = i
	}
	middle, _ := testOptions.hashName(name(pair[0]))
	for i := 0; len(fill) < perLeaf-1; i++ {
		if hash, _ := testOptions.hashName(name(i)); hash < middle {
			fill = append(fill, i)
		}
	}
	w, finish := newFS(t)
	for _, i := range append(fill, pair...) {
		add(t, w, tar.Header{Typeflag: tar.TypeReg, Name: "d/" + name(i)}, "")
	}
	image := finish(0)
	out := debugfs(t, image, "htree_dump d")
	if want := fmt.Sprintf("Entry #1: Hash 0x%08x, block 2", middle|1); !strings.Contains(out, want) {
		t.Errorf("the second leaf does not go on from the first:\n%s", out)
	}
	r := readImage(t, image)
	d, err := r.lookup("d")
	if err != nil || len(r.names(d)) != perLeaf+1 {
		t.Errorf("read back %d names, error %v", len(r.names(d)), err)
	}
}
