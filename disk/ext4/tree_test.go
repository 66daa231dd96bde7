package ext4

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"
)

// tree is what a file system should hold, kept the simple way.
type tree struct {
	files   map[string]*file // by path; hard links share a file
	forward map[string]string
}

type file struct {
	h      tar.Header
	data   []byte
	xattrs map[string]string // as on the disk
}

// add does to the tree what Writer.Add does to the file system. ok is false for
// what Add would refuse.
func (m *tree) add(h tar.Header, data []byte, xattrs map[string]string) (ok bool) {
	for dir := path.Dir(h.Name); dir != "."; dir = path.Dir(dir) {
		if f := m.files[dir]; f != nil && f.h.Typeflag != tar.TypeDir || m.forward[dir] != "" {
			return false
		}
	}
	old := m.files[h.Name]
	oldDir := old != nil && old.h.Typeflag == tar.TypeDir
	if oldDir && h.Typeflag != tar.TypeDir {
		return false
	}
	if h.Typeflag == tar.TypeLink {
		target := m.files[h.Linkname]
		if target != nil && target.h.Typeflag == tar.TypeDir || strings.HasPrefix(h.Name+"/", h.Linkname+"/") {
			return false
		}
		delete(m.files, h.Name)
		delete(m.forward, h.Name)
		if target != nil {
			m.files[h.Name] = target
		} else {
			m.forward[h.Name] = h.Linkname
		}
	} else {
		delete(m.forward, h.Name)
		m.files[h.Name] = &file{h, data, xattrs}
	}
	for dir := path.Dir(h.Name); dir != "."; dir = path.Dir(dir) {
		if m.files[dir] == nil {
			m.files[dir] = &file{h: tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: testOptions.Epoch}}
		}
	}
	return true
}

// resolve follows a hard link that came before its target; nil is an error.
func (m *tree) resolve(name string) *file {
	for range len(m.forward) {
		if name = m.forward[name]; m.forward[name] == "" {
			break
		}
	}
	if f := m.files[name]; f != nil && f.h.Typeflag != tar.TypeDir {
		return f
	}
	return nil
}

// compare reads a file system and reports every difference from the tree.
func (m *tree) compare(t *testing.T, image string) {
	t.Helper()
	r := readImage(t, image)
	links := make(map[*file]int)
	for _, f := range m.files {
		links[f]++
	}
	seen := make(map[string]bool)
	inodes := make(map[*file]uint32)
	var walk func(dir string, n readInode)
	walk = func(dir string, n readInode) {
		subdirs := 0
		for name, ino := range r.names(n) {
			p := path.Join(dir, name)
			child := r.inode(ino)
			if child.mode&modeType == modeDir {
				subdirs++
			}
			if p == "lost+found" {
				continue
			}
			seen[p] = true
			f := m.files[p]
			if f == nil {
				t.Errorf("%q is there, though never added", p)
				continue
			}
			f.compare(t, r, p, child)
			if child.mode&modeType == modeDir {
				walk(p, child)
				continue
			}
			if inodes[f] != 0 && inodes[f] != ino {
				t.Errorf("%q has inode %d, its hard link %d", p, ino, inodes[f])
			}
			inodes[f] = ino
			if int(child.links) != links[f] {
				t.Errorf("%q counts %d links, not %d", p, child.links, links[f])
			}
		}
		if want := subdirs + 2; int(n.links) != want && n.links != 1 {
			t.Errorf("directory %q counts %d links, not %d", dir, n.links, want)
		}
	}
	walk("", r.inode(2))
	for p := range m.files {
		if !seen[p] {
			t.Errorf("%q is missing", p)
		}
	}
}

func (f *file) compare(t *testing.T, r *readFS, p string, n readInode) {
	t.Helper()
	kinds := map[byte]uint16{
		tar.TypeReg: modeRegular, tar.TypeDir: modeDir, tar.TypeSymlink: modeSymlink,
		tar.TypeChar: modeChar, tar.TypeBlock: modeBlock, tar.TypeFifo: modeFIFO,
	}
	mode := kinds[f.h.Typeflag] | uint16(f.h.Mode&0o7777)
	if f.h.Mode&modeType == modeSocket {
		mode = modeSocket | uint16(f.h.Mode&0o7777)
	}
	check := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("%q: %s is %v, not %v", p, what, got, want)
		}
	}
	check("mode", fmt.Sprintf("%o", n.mode), fmt.Sprintf("%o", mode))
	check("uid", n.uid, uint32(f.h.Uid))
	check("gid", n.gid, uint32(f.h.Gid))
	check("mtime", n.mtime, [2]int64{f.h.ModTime.Unix(), int64(f.h.ModTime.Nanosecond())})
	switch f.h.Typeflag {
	case tar.TypeReg:
		check("size", n.size, int64(len(f.data)))
		if n.mode&modeType == modeRegular && !bytes.Equal(r.data(n), f.data) {
			t.Errorf("%q has other content", p)
		}
	case tar.TypeSymlink:
		check("target", string(r.data(n)), f.h.Linkname)
	}
	check("number of xattrs", len(n.xattrs), len(f.xattrs))
	for name, value := range f.xattrs {
		check("xattr "+name, n.xattrs[name], value)
	}
}

// FuzzTree adds random entries, by a random source of this seed, to a file system
// and to a tree, and compares.
func FuzzTree(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, uint16(20+20*seed))
	}
	f.Fuzz(func(t *testing.T, seed uint64, entries uint16) {
		w, finish := newFS(t)
		m := &tree{map[string]*file{}, map[string]string{}}
		g := &generator{rand.New(rand.NewPCG(seed, 0)), m}
		put := func(h tar.Header, data []byte, xattrs map[string]string) {
			disk := make(map[string]string)
			h.PAXRecords = make(map[string]string)
			for name, value := range xattrs {
				h.PAXRecords["SCHILY.xattr."+name] = value
				disk[name] = value
			}
			h.Size = int64(len(data))
			if !m.add(h, data, disk) {
				return
			}
			if err := w.Add(&h, bytes.NewReader(data)); err != nil {
				t.Fatal(err)
			}
		}
		for range entries % 1000 {
			put(g.entry())
		}
		// A link that leads nowhere, to a directory or round in a circle would be
		// an error: a file takes its place.
		for _, name := range slices.Sorted(maps.Keys(m.forward)) {
			if m.resolve(name) == nil {
				put(tar.Header{Typeflag: tar.TypeReg, Name: name, ModTime: time.Unix(1, 0)}, nil, nil)
			}
		}
		for name := range m.forward {
			m.files[name] = m.resolve(name)
		}
		m.compare(t, finish(int64(entries)<<10))
	})
}

type generator struct {
	*rand.Rand
	m *tree
}

func pick[T any](g *generator, from ...T) T { return from[g.IntN(len(from))] }

func (g *generator) path() string {
	elements := make([]string, 1+g.IntN(4))
	for i := range elements {
		elements[i] = pick(g, "a", "b", "c", "d", "e", strings.Repeat("long", 63)+"xyz", "\xff\xfe", "name with space", fmt.Sprint(g.IntN(1000)))
	}
	return strings.Join(elements, "/")
}

func (g *generator) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

func (g *generator) entry() (tar.Header, []byte, map[string]string) {
	h := tar.Header{
		Typeflag: pick[byte](g, tar.TypeReg, tar.TypeReg, tar.TypeReg, tar.TypeDir, tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo),
		Name:     g.path(),
		Mode:     int64(g.IntN(0o10000)),
		Uid:      pick(g, 0, 1000, 65535, 65536, 4294967294),
		Gid:      pick(g, 0, 1000, 65535, 65536, 4294967294),
		ModTime:  time.Unix(g.Int64N(6<<31)-1<<31, g.Int64N(1e9)), // 1901 to 2310
	}
	xattrs := make(map[string]string)
	for range pick(g, 0, 0, 0, 1, 2, 5) {
		name := pick(g, "user.", "trusted.", "security.") + pick(g, "a", "selinux", "long.name.of.an.attribute")
		xattrs[name] = string(g.bytes(g.IntN(200)))
	}
	switch h.Typeflag {
	case tar.TypeReg:
		if g.IntN(10) == 0 {
			h.Mode |= modeSocket
			return h, nil, xattrs
		}
		data := make([]byte, 0)
		for range g.IntN(6) {
			if g.IntN(2) == 0 {
				data = append(data, make([]byte, g.IntN(40000))...)
			} else {
				data = append(data, bytes.Repeat([]byte{byte(1 + g.IntN(255))}, pick(g, 1, 100, 4095, 4096, 4097, 30000))...)
			}
		}
		return h, data, xattrs
	case tar.TypeLink:
		h.Linkname = g.path()
	case tar.TypeSymlink:
		h.Linkname = strings.Repeat("t", pick(g, 1, 59, 60, 61, 500, 4095))
	case tar.TypeChar, tar.TypeBlock:
		h.Devmajor, h.Devminor = g.Int64N(1<<12), g.Int64N(1<<20)
	}
	return h, nil, xattrs
}
