package ext4

import (
	"archive/tar"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzTree lets the bytes choose entries, adds them to a file system and to a
// tree, and compares the two by two readers, ours and go-diskfs's; e2fsck has
// nothing to say.
func FuzzTree(f *testing.F) {
	for seed := range byte(12) {
		b := make([]byte, 20<<(seed/3))
		rand.NewChaCha8([32]byte{seed}).Read(b)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g := &generator{choices: choices{b}, m: &tree{map[string]*file{}, map[string]string{}}, data: 200 << 20}
		o := testOptions
		o.MaxSize = pick[int64](g, 0, maxBlocks*blockSize)
		if g.below(4) == 0 {
			o.HashSeed = [16]byte{}
		}
		g.longName = pick(g, 247, 247, maxName)
		size, amount := g.below(2), int64(g.below(1<<16))
		for len(g.left) > 0 && len(g.entries) < 20_000 {
			g.step()
		}
		g.finish()

		image := filepath.Join(t.TempDir(), "fs")
		if size == 0 {
			g.build(t, image, o, func(w *Writer) (int64, error) { return w.Close(amount << 20) })
		} else {
			// Too small a size tells the smallest there is.
			var need int64
			g.build(t, image, o, func(w *Writer) (int64, error) {
				err := w.CloseSize(blockSize)
				if _, err := fmt.Sscanf(fmt.Sprint(err), "write ext4: size of 4096 bytes is not enough, %d are needed", &need); err != nil {
					t.Fatal(err)
				}
				return 0, nil
			})
			need += amount << 12
			g.build(t, image, o, func(w *Writer) (int64, error) { return need, w.CloseSize(need) })
		}
		if out, err := tool(t, "e2fsck", "-f", "-n", image); err != nil {
			t.Fatalf("e2fsck: %v\n%s", err, out)
		}
		g.m.compare(t, image)
		if g.longName < maxName { // go-diskfs v1.9.4 panics at names of 248 bytes and more
			g.m.compareDiskfs(t, image)
		}
	})
}

// choices are bytes to choose by; when they run out it is always the first.
type choices struct{ left []byte }

// below is a number from 0 to n-1.
func (c *choices) below(n int) int {
	v := 0
	for m := n - 1; m > 0; m >>= 8 {
		v <<= 8
		if len(c.left) > 0 {
			v |= int(c.left[0])
			c.left = c.left[1:]
		}
	}
	return v % n
}

func pick[T any](g *generator, from ...T) T { return from[g.below(len(from))] }

// generator makes entries, and the tree that they should give.
type generator struct {
	choices
	m        *tree
	entries  []entry
	data     int64 // bytes that are no zeros, still to be spent
	longName int   // length of the longest names
}

type entry struct {
	h    tar.Header
	data content
}

// build writes the entries to a file anew.
func (g *generator) build(t *testing.T, image string, o Options, finish func(*Writer) (int64, error)) {
	t.Helper()
	out, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w, err := NewWriter(out, 0, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range g.entries {
		h := e.h
		if err := w.Add(&h, e.data.reader()); err != nil {
			t.Fatal(err)
		}
	}
	size, err := finish(w)
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

// put adds an entry, unless Add would refuse it.
func (g *generator) put(h tar.Header, data content, xattrs map[string]string) {
	disk := maps.Clone(xattrs)
	h.PAXRecords = make(map[string]string)
	for name, value := range xattrs {
		h.PAXRecords["SCHILY.xattr."+name] = value
		common := h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeReg && h.Mode&modeType != modeSocket
		switch {
		case value == testACL && h.Typeflag != tar.TypeSymlink:
			acl := []byte(testACLDisk)
			acl[6], acl[30], acl[34] = byte(h.Mode>>6&7), byte(h.Mode>>3&7), byte(h.Mode&7) // owner, mask, others
			disk[name] = string(acl)
		case value == testACL, strings.HasPrefix(name, "user.") && !common:
			delete(disk, name)
		}
	}
	h.Size = data.size()
	if g.m.add(h, data, disk) {
		g.entries = append(g.entries, entry{h, data})
	}
}

// finish puts a file in the place of every link that leads nowhere, to a directory
// or round in a circle, which would be an error.
func (g *generator) finish() {
	for _, name := range slices.Sorted(maps.Keys(g.m.forward)) {
		if g.m.resolve(name) == nil {
			g.put(tar.Header{Typeflag: tar.TypeReg, Name: name, ModTime: time.Unix(1, 0)}, nil, nil)
		}
	}
	for name := range g.m.forward {
		g.m.files[name] = g.m.resolve(name)
	}
}

// step adds one entry, a directory full of them, or one deep down.
func (g *generator) step() {
	switch g.below(24) {
	case 0:
		h, _, xattrs := g.header()
		h.Typeflag = pick[byte](g, tar.TypeReg, tar.TypeReg, tar.TypeDir, tar.TypeFifo, tar.TypeLink)
		h.Mode &= 0o7777
		if h.Typeflag == tar.TypeLink {
			h.Linkname = g.path()
		}
		dir, pad := g.path(), strings.Repeat("p", pick(g, 0, 1, 2, 3, 100, g.longName-4))
		for i := range g.below(3000) {
			h.Name = fmt.Sprintf("%s/%s%d", dir, pad, i)
			g.put(h, nil, xattrs)
		}
	case 1:
		h, data, xattrs := g.header()
		h.Name = strings.Repeat(pick(g, "d/", "deeper/"), g.below(200)) + h.Name
		g.put(h, data, xattrs)
	default:
		g.put(g.header())
	}
}

func (g *generator) path() string {
	elements := make([]string, 1+g.below(4))
	for i := range elements {
		elements[i] = pick(g, "a", "b", "c", "d", "e", strings.Repeat("long", 64)[:g.longName], "\xff\xfe", "name with space", "back\\slash", fmt.Sprint(g.below(1000)))
	}
	return strings.Join(elements, "/")
}

func (g *generator) header() (tar.Header, content, map[string]string) {
	h := tar.Header{
		Typeflag: pick[byte](g, tar.TypeReg, tar.TypeReg, tar.TypeReg, tar.TypeDir, tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo),
		Name:     g.path(),
		Mode:     int64(g.below(0o10000)),
		Uid:      pick(g, 0, 1000, 65535, 65536, 4294967294),
		Gid:      pick(g, 0, 1000, 65535, 65536, 4294967294),
		ModTime:  time.Unix(int64(pick(g, -1<<31, -1, 0, 1<<31-1, 1<<31, 5<<31-1, g.below(6<<31)-1<<31)), int64(g.below(1e9))), // 1901 to 2310
	}
	xattrs := g.xattrs()
	switch h.Typeflag {
	case tar.TypeReg:
		if g.below(10) == 0 {
			h.Mode |= modeSocket
			return h, nil, xattrs
		}
		return h, g.content(), xattrs
	case tar.TypeLink:
		h.Linkname = g.path()
	case tar.TypeSymlink:
		h.Linkname = strings.Repeat("t", pick(g, 1, 59, 60, 61, 500, 4095))
	case tar.TypeChar, tar.TypeBlock:
		h.Devmajor, h.Devminor = int64(g.below(1<<12)), int64(g.below(1<<20))
	}
	return h, nil, xattrs
}

// xattrs chooses attributes that fit into the inode and one block. The same ones
// come often, so that blocks are shared.
func (g *generator) xattrs() map[string]string {
	xattrs := make(map[string]string)
	left := blockSize - xattrHeaderSize - 4
	for range pick(g, 0, 0, 0, 1, 2, 5) {
		name := pick(g, "user.", "trusted.", "security.") + pick(g, "a", "selinux", "long.name.of.an.attribute", strings.Repeat("n", 200))
		value := strings.Repeat(pick(g, "v", "w", "\x00", "\xff"), pick(g, 0, 1, 3, 4, 20, 60, 100, 500, 3000))
		if g.below(8) == 0 {
			name, value = "system.posix_acl_access", testACL
		}
		if left -= 16 + len(name) + len(value) + 6; left > 0 {
			xattrs[name] = value
		}
	}
	return xattrs
}

// content chooses what is in a file: short, long or very long, with holes of any
// size, ends of blocks hit and missed, and now and then so many pieces that their
// extents make a tree.
func (g *generator) content() content {
	var c content
	fill := func(n int64) {
		if n > g.data {
			n = 1
		}
		g.data -= n
		c.add(n, byte(1+g.below(255)))
	}
	for range g.below(6) {
		switch g.below(12) {
		case 0, 1, 2:
			c.add(int64(g.below(40_000)), 0)
		case 3:
			c.add(pick[int64](g, 1, 4095, 4096, 4097, 1<<20, 128<<20, 4<<30-1), 0)
		case 4:
			for range g.below(2000) {
				c.add(4096, 0)
				fill(4096)
			}
		case 5:
			fill(int64(g.below(1 << 24)))
		case 6:
			fill(pick[int64](g, 1<<20, 127<<20, 129<<20))
		default:
			fill(pick[int64](g, 1, 100, 4095, 4096, 4097, 30_000))
		}
	}
	return c
}
