package corpus

import (
	"maps"
	"strings"

	"lab/lab/corpus/listing"
)

// OnExt4 is what a kernel shows of files once they are on ext4. Its inodes hold
// times from 1901 to 2310 (Documentation/filesystems/ext4/inodes.rst; e2fsck
// takes later ones for earlier), and the nearest is kept. Its attributes are of
// the namespaces that Linux lets anybody set on it: xattr(7), and fs/xattr.c,
// xattr_permission, for user. on what is neither file nor directory.
func OnExt4(files []listing.File) []listing.File {
	var list []listing.File
	for _, f := range files {
		f.Mtime = nearest(f.Mtime)
		f.Atime, f.Ctime = f.Mtime, f.Mtime
		kept := maps.Clone(f.Xattrs)
		maps.DeleteFunc(kept, func(name, _ string) bool { return !settable(name, f.Type()) })
		if list, ok := kept[accessList]; ok {
			if kept[accessList] = afterChmod(list, f.Mode); kept[accessList] == "" {
				delete(kept, accessList)
			}
		}
		if f.Xattrs = kept; len(kept) == 0 {
			f.Xattrs = nil
		}
		list = append(list, f)
	}
	return list
}

const accessList, defaultList = "system.posix_acl_access", "system.posix_acl_default"

// afterChmod is an access list as chmod(2) leaves it: the mode has the owner's
// permissions, the others', and the mask's or, without one, the group's
// (fs/posix_acl.c, posix_acl_chmod). A list of owner, group and others alone is
// the mode and no more.
func afterChmod(list string, mode uint32) string {
	const size = 8 // tag, permissions, id
	b := []byte(list)
	mask := len(b) > 4+3*size // which more than the three must have
	for at := 4; at < len(b); at += size {
		switch b[at] {
		case 0x01:
			b[at+2] = byte(mode >> 6 & 7)
		case 0x04:
			if !mask {
				b[at+2] = byte(mode >> 3 & 7)
			}
		case 0x10:
			b[at+2] = byte(mode >> 3 & 7)
		case 0x20:
			b[at+2] = byte(mode & 7)
		}
	}
	if len(b) == 4+3*size {
		return ""
	}
	return string(b)
}

func nearest(t listing.Time) listing.Time {
	const first, last = -1 << 31, 5<<31 - 1
	switch {
	case t.Sec < first:
		return listing.Time{Sec: first}
	case t.Sec > last:
		return listing.Time{Sec: last}
	}
	return t
}

func settable(name string, kind uint32) bool {
	common := kind == listing.TypeRegular || kind == listing.TypeDir
	space, _, _ := strings.Cut(name, ".")
	switch space {
	case "trusted", "security":
		return true
	case "user":
		return common
	case "system":
		return name == accessList && kind != listing.TypeSymlink || name == defaultList && kind == listing.TypeDir
	}
	return false
}
