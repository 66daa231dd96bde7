package ext4

import (
	"archive/tar"
	"fmt"
	"path"
	"strings"
	"testing"
)

// tree is what a file system should hold, kept the simple way.
type tree struct {
	files   map[string]*file // by path; hard links share a file
	forward map[string]string
}

type file struct {
	h      tar.Header
	data   content
	xattrs map[string]string // as on the disk
}

// add does to the tree what Writer.Add does to the file system. ok is false for
// what Add would refuse.
func (m *tree) add(h tar.Header, data content, xattrs map[string]string) (ok bool) {
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

// links counts the names of each file.
func (m *tree) links() map[*file]int {
	links := make(map[*file]int)
	for _, f := range m.files {
		links[f]++
	}
	return links
}

// compare reads a file system and reports every difference from the tree.
func (m *tree) compare(t *testing.T, image string) {
	t.Helper()
	r := readImage(t, image)
	links := m.links()
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

// mode is what the inode has as its mode.
func (f *file) mode() uint16 {
	if f.h.Mode&modeType == modeSocket {
		return uint16(f.h.Mode)
	}
	kinds := map[byte]uint16{
		tar.TypeReg: modeRegular, tar.TypeDir: modeDir, tar.TypeSymlink: modeSymlink,
		tar.TypeChar: modeChar, tar.TypeBlock: modeBlock, tar.TypeFifo: modeFIFO,
	}
	return kinds[f.h.Typeflag] | uint16(f.h.Mode&0o7777)
}

func (f *file) compare(t *testing.T, r *readFS, p string, n readInode) {
	t.Helper()
	check := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("%q: %s is %v, not %v", p, what, got, want)
		}
	}
	check("mode", fmt.Sprintf("%o", n.mode), fmt.Sprintf("%o", f.mode()))
	check("uid", n.uid, uint32(f.h.Uid))
	check("gid", n.gid, uint32(f.h.Gid))
	check("mtime", n.mtime, [2]int64{f.h.ModTime.Unix(), int64(f.h.ModTime.Nanosecond())})
	switch f.h.Typeflag {
	case tar.TypeReg:
		check("size", n.size, f.data.size())
		if f.mode()&modeType == modeRegular && !r.holds(n, f.data) {
			t.Errorf("%q has other content", p)
		}
	case tar.TypeSymlink:
		check("target", string(r.data(n)), f.h.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		check("device", n.device(), [2]int64{f.h.Devmajor, f.h.Devminor})
	}
	check("number of xattrs", len(n.xattrs), len(f.xattrs))
	for name, value := range f.xattrs {
		check("xattr "+name, n.xattrs[name], value)
	}
}
