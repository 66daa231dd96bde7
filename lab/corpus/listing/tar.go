package listing

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// ReadTar lists what unpacking a tar would give, one that has each path once
// and all directories. An empty file whose mode is a socket's counts as one, for
// tar has no type for sockets.
func ReadTar(r io.Reader) ([]File, error) {
	types := map[byte]uint32{tar.TypeReg: TypeRegular, tar.TypeDir: TypeDir, tar.TypeSymlink: TypeSymlink, tar.TypeChar: TypeChar, tar.TypeBlock: TypeBlock, tar.TypeFifo: TypeFIFO, tar.TypeLink: 0}
	files, links := make(map[string]*File), make(map[string]string)
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		kind, ok := types[h.Typeflag]
		name := path.Clean(h.Name)
		if !ok || files[name] != nil || links[name] != "" {
			return nil, fmt.Errorf("entry %q of type %q is unknown or comes twice", h.Name, h.Typeflag)
		}
		if h.Typeflag == tar.TypeLink {
			links[name] = path.Clean(h.Linkname)
			continue
		}
		f := &File{
			Mode: kind | uint32(h.Mode), UID: uint32(h.Uid), GID: uint32(h.Gid), Major: uint32(h.Devmajor), Minor: uint32(h.Devminor),
			Mtime: Time{h.ModTime.Unix(), int64(h.ModTime.Nanosecond())}, Content: "-",
		}
		f.Atime, f.Ctime = f.Mtime, f.Mtime
		if !h.AccessTime.IsZero() {
			f.Atime = Time{h.AccessTime.Unix(), int64(h.AccessTime.Nanosecond())}
		}
		if !h.ChangeTime.IsZero() {
			f.Ctime = Time{h.ChangeTime.Unix(), int64(h.ChangeTime.Nanosecond())}
		}
		switch {
		case h.Mode&TypeMask == TypeSocket:
			f.Mode = uint32(h.Mode)
		case kind == TypeSymlink:
			f.Size, f.Content = int64(len(h.Linkname)), h.Linkname
		case kind == TypeRegular:
			sum := sha256.New()
			if f.Size, err = io.Copy(sum, tr); err != nil {
				return nil, err
			}
			f.Content = hex.EncodeToString(sum.Sum(nil))
		}
		for key, value := range h.PAXRecords {
			if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
				if f.Xattrs == nil {
					f.Xattrs = make(map[string]string)
				}
				f.Xattrs[name] = value
			}
		}
		files[name] = f
	}
	for name, target := range links { // which may be a link in its turn
		for range links {
			if next, ok := links[target]; ok {
				target = next
			}
		}
		if files[name] = files[target]; files[name] == nil {
			return nil, fmt.Errorf("hard link %q leads to %q, which is not there", name, target)
		}
	}
	return Files(files), nil
}

// Files makes a listing of a tree: what is at each path, "." for the root, with
// the same File wherever a path is a hard link to another. Name, Links and Inode
// are filled in.
func Files(tree map[string]*File) []File {
	var names []string
	folders := make(map[string]uint32)
	for name, f := range tree {
		names = append(names, name)
		if f.Type() == TypeDir && name != "." {
			folders[path.Dir(name)]++
		}
	}
	slices.SortFunc(names, inWalk)
	first, count := make(map[*File]string), make(map[*File]uint32)
	for _, name := range names {
		f := tree[name]
		if count[f]++; count[f] == 1 {
			first[f] = name
		}
	}
	var list []File
	for _, name := range names {
		f := *tree[name]
		f.Name, f.Inode, f.Links = name, first[tree[name]], count[tree[name]]
		if f.Type() == TypeDir {
			f.Links = 2 + folders[name]
		}
		list = append(list, f)
	}
	return list
}

// inWalk orders paths as Walk comes by them.
func inWalk(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == ".":
		return -1
	case b == ".":
		return 1
	}
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

// Below gives the listing as it is from a folder above the root.
func Below(prefix string, files []File) []File {
	var list []File
	for _, f := range files {
		f.Name, f.Inode = path.Join(prefix, f.Name), path.Join(prefix, f.Inode)
		list = append(list, f)
	}
	return list
}

// Lines are the files as text.
func Lines(files []File) []string {
	var lines []string
	for _, f := range files {
		lines = append(lines, f.String())
	}
	return lines
}
