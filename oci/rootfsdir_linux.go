package oci

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// tarDir writes a directory as a tar, by name, with owners, modes, times,
// extended attributes and hard links as they are. Sockets, which no archive
// holds, are left out with a notice.
func tarDir(ctx context.Context, w io.Writer, dir string, notice func(string)) error {
	dir, err := filepath.EvalSymlinks(dir) // WalkDir follows none, not even the first
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	seen := map[[2]uint64]string{} // files with several names, by device and inode
	buf := make([]byte, bufferSize)
	err = filepath.WalkDir(dir, func(full string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, full)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(full, &st); err != nil {
			return fmt.Errorf("stat %s: %w", full, err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			if notice != nil {
				notice(fmt.Sprintf("%s is a socket and left out", full))
			}
			return nil
		}
		return writeFile(tw, full, name, &st, seen, buf)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

func writeFile(tw *tar.Writer, full, name string, st *unix.Stat_t, seen map[[2]uint64]string, buf []byte) error {
	seconds, nanos := st.Mtim.Unix()
	e := entry{
		Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		Second: seconds, Nanos: int32(nanos),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Type, e.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		e.Type = tar.TypeDir
	case unix.S_IFLNK:
		e.Type = tar.TypeSymlink
		target, err := os.Readlink(full)
		if err != nil {
			return err
		}
		e.Link = target
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Type = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			e.Type = tar.TypeBlock
		}
		e.Major, e.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	case unix.S_IFIFO:
		e.Type = tar.TypeFifo
	default:
		return fmt.Errorf("%s has the unknown type %o", full, st.Mode&unix.S_IFMT)
	}
	var err error
	if e.Xattrs, err = xattrsOfFile(full); err != nil {
		return err
	}
	h := e.header(name)
	if inode := [2]uint64{st.Dev, st.Ino}; st.Nlink > 1 && e.Type != tar.TypeDir {
		if first, ok := seen[inode]; ok {
			h.Typeflag, h.Linkname, h.Size, h.PAXRecords = tar.TypeLink, first, 0, nil
			h.Devmajor, h.Devminor = 0, 0
		} else {
			seen[inode] = name
		}
	}
	if err := tw.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", full, err)
	}
	if h.Size == 0 {
		return nil
	}
	f, err := os.OpenFile(full, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{tw}, io.LimitReader(f, h.Size), buf)
	if err == nil && n != h.Size {
		err = errors.New("file shrank while it was read")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", full, err)
	}
	return nil
}

// xattrsOfFile reads a file's extended attributes, those of a symlink itself.
func xattrsOfFile(full string) ([]xattr, error) {
	n, err := unix.Llistxattr(full, nil) // the size first: most files have none
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	}
	buf := make([]byte, maxXattrSize)
	if err == nil {
		n, err = unix.Llistxattr(full, buf)
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes of %s: %w", full, err)
	}
	var list []xattr
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, maxXattrSize)
		n, err := unix.Lgetxattr(full, name, value)
		if err != nil {
			return nil, fmt.Errorf("read extended attribute %s of %s: %w", name, full, err)
		}
		list = append(list, xattr{name, string(value[:n])})
	}
	return list, nil
}
