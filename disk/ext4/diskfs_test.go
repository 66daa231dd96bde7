package ext4

import (
	"archive/tar"
	"io"
	"os"
	"path"
	"slices"
	"testing"
	"unicode/utf8"

	diskfile "github.com/diskfs/go-diskfs/backend/file"
	diskext4 "github.com/diskfs/go-diskfs/filesystem/ext4"
)

// compareDiskfs reads a file system with go-diskfs, whose code is not ours, and
// reports every difference from the tree. What v1.9.4 does not read is left out:
// names that are not UTF-8 in listings, attributes without a value, and holes, for
// which it gives other bytes.
func (m *tree) compareDiskfs(t *testing.T, image string) {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := diskext4.Read(diskfile.New(f, true), info.Size(), 0, 512)
	if err != nil {
		t.Fatalf("go-diskfs: %v", err)
	}

	inDir := map[string][]string{"": {"lost+found"}, "lost+found": nil}
	for p, f := range m.files {
		dir := path.Dir(p)
		if dir == "." {
			dir = ""
		}
		inDir[dir] = append(inDir[dir], path.Base(p))
		if f.mode()&modeType == modeDir && inDir[p] == nil {
			inDir[p] = nil
		}
	}
	links := m.links()
	for dir, want := range inDir {
		slices.Sort(want)
		if utf8.ValidString(dir) {
			entries, err := fsys.ReadDir(path.Join(".", dir))
			if err != nil {
				t.Errorf("go-diskfs: read directory %q: %v", dir, err)
				continue
			}
			var got []string
			for _, e := range entries {
				got = append(got, e.Name())
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("go-diskfs: directory %q holds %.300q, not %.300q", dir, got, want)
			}
		}
		// Each look at a path reads all directories above it, so of very many names
		// only some.
		for i := 0; i < len(want); i += 1 + len(want)/64 {
			if p := path.Join(dir, want[i]); p != "lost+found" {
				m.files[p].compareDiskfs(t, fsys, p, links)
			}
		}
	}
}

func (f *file) compareDiskfs(t *testing.T, fsys *diskext4.FileSystem, p string, links map[*file]int) {
	t.Helper()
	check := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("go-diskfs: %q: %s is %.100v, not %.100v", p, what, got, want)
		}
	}
	info, err := fsys.Stat(p)
	if err != nil {
		t.Errorf("go-diskfs: %v", err)
		return
	}
	st := info.Sys().(*diskext4.StatT)
	check("mode", info.Mode(), f.goMode())
	check("uid", st.UID, uint32(f.h.Uid))
	check("gid", st.GID, uint32(f.h.Gid))
	check("mtime", info.ModTime().UnixNano(), f.h.ModTime.UnixNano())
	switch f.h.Typeflag {
	case tar.TypeReg:
		check("size", info.Size(), f.data.size())
	case tar.TypeSymlink:
		check("target", st.LinkTarget, f.h.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		check("device", [2]int64{int64(st.Major), int64(st.Minor)}, [2]int64{f.h.Devmajor, f.h.Devminor})
	}
	if f.h.Typeflag != tar.TypeDir {
		check("links", int(st.Nlink), links[f])
	}

	xattrs, err := fsys.GetXattr(p)
	if err != nil {
		t.Errorf("go-diskfs: read attributes of %q: %v", p, err)
	}
	for name, value := range f.xattrs {
		check("xattr "+name, string(xattrs[name]), value)
		delete(xattrs, name)
	}
	check("xattrs too many", len(xattrs), 0)

	if f.mode()&modeType != modeRegular || f.data.holes() || f.data.size() == 0 {
		return
	}
	r, err := fsys.OpenFile(p, os.O_RDONLY)
	if err != nil {
		t.Errorf("go-diskfs: %v", err)
		return
	}
	b := make([]byte, f.data.size())
	if _, err := io.ReadFull(r, b); err != nil || !f.data.equal(0, b) {
		t.Errorf("go-diskfs: %q has other content, error %v", p, err)
	}
}

// goMode is what io/fs makes of the mode.
func (f *file) goMode() os.FileMode {
	mode := f.mode()
	out := os.FileMode(mode & 0o777)
	for bit, to := range map[uint16]os.FileMode{0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid, 0o1000: os.ModeSticky} {
		if mode&bit != 0 {
			out |= to
		}
	}
	kinds := map[uint16]os.FileMode{
		modeDir: os.ModeDir, modeSymlink: os.ModeSymlink, modeChar: os.ModeDevice | os.ModeCharDevice,
		modeBlock: os.ModeDevice, modeFIFO: os.ModeNamedPipe, modeSocket: os.ModeSocket,
	}
	return out | kinds[mode&modeType]
}
