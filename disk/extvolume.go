package disk

import (
	"fmt"
	"io"

	"lab/disk/ext4"
)

// extVolume is an ext4 file system. It is read by lab's own reader: go-diskfs
// 1.9.4 gives a file's permissions and attributes only by its path, which it
// finds by reading every directory above each time; it refuses names that are
// not UTF-8 or longer than 247 bytes, leaves out attributes without a value,
// reads holes as what lies next on the disk, and on a directory or a file that
// was made up takes memory until there is none.
type extVolume struct{ fsys *ext4.Reader }

func newExtVolume(r *io.SectionReader) (volume, error) {
	fsys, err := ext4.NewReader(r, r.Size())
	if err != nil {
		return nil, err
	}
	return extVolume{fsys}, nil
}

func (v extVolume) usage() Usage {
	s := v.fsys.Super
	return Usage{
		Label:      s.Label,
		UUID:       fmt.Sprintf("%x-%x-%x-%x-%x", s.UUID[:4], s.UUID[4:6], s.UUID[6:8], s.UUID[8:10], s.UUID[10:]),
		BlockSize:  s.BlockSize,
		Size:       s.Blocks * s.BlockSize,
		Free:       s.FreeBlocks * s.BlockSize,
		Inodes:     int64(s.Inodes),
		FreeInodes: int64(s.FreeInodes),
	}
}

func (v extVolume) root() (Stat, error) {
	n, err := v.fsys.Root()
	if err != nil {
		return Stat{}, err
	}
	if n.Mode&TypeMask != TypeDir {
		return Stat{}, fmt.Errorf("its root is not a directory")
	}
	return v.file("/", n)
}

func (v extVolume) file(name string, n *ext4.Node) (Stat, error) {
	f := Stat{
		Path: name, Mode: n.Mode, UID: n.UID, GID: n.GID, Atime: n.Atime, Mtime: n.Mtime, Ctime: n.Ctime,
		Links: n.Links, Inode: n.Ino, Major: n.Major, Minor: n.Minor, node: n,
	}
	var err error
	switch f.Type() {
	case TypeRegular:
		f.Size = n.Size
	case TypeSymlink:
		f.Size = n.Size
		f.Target, err = v.fsys.ReadLink(n)
	}
	return f, err
}

func (v extVolume) names(dir *Stat) ([]entry, error) {
	names, err := v.fsys.ReadDir(dir.node.(*ext4.Node))
	if err != nil {
		return nil, err
	}
	list := make([]entry, len(names))
	for i, name := range names {
		list[i] = entry{name: name.Name, inode: name.Ino}
	}
	return list, nil
}

func (v extVolume) stat(e entry) (Stat, error) {
	n, err := v.fsys.Node(e.inode)
	if err != nil {
		return Stat{}, err
	}
	return v.file(e.name, n)
}

func (v extVolume) content(f *Stat) (*Content, error) {
	c, err := v.fsys.Content(f.node.(*ext4.Node))
	if err != nil {
		return nil, err
	}
	return &Content{ReaderAt: c, Size: c.Size(), hole: c.Hole}, nil
}

func (v extVolume) xattrs(f *Stat) (map[string]string, error) {
	return v.fsys.Xattrs(f.node.(*ext4.Node))
}
