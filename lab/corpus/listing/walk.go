package listing

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Walk calls fn for the root and every path below it, a directory before what
// is in it and in it by name. It changes the process's working directory on its
// way, because trees may be deeper than a path can be long, and comes back.
func Walk(root string, fn func(File) error) error {
	back, err := os.Open(".")
	if err != nil {
		return err
	}
	defer back.Close()
	if err := os.Chdir(root); err != nil {
		return err
	}
	w := walker{fn: fn, inodes: make(map[uint64]string)}
	err = w.file(".", ".")
	if err == nil {
		err = w.directory("")
	}
	return errors.Join(err, back.Chdir())
}

type walker struct {
	fn     func(File) error
	inodes map[uint64]string
	isDir  bool // the last file was one
}

// directory walks the working directory, whose path from the root is at.
func (w *walker) directory(at string) error {
	entries, err := os.ReadDir(".")
	if err != nil {
		return fmt.Errorf("read directory %q: %w", at, err)
	}
	for _, e := range entries {
		name := at + e.Name()
		if err := w.file(e.Name(), name); err != nil {
			return err
		}
		if !w.isDir {
			continue
		}
		if err := os.Chdir(e.Name()); err != nil {
			return fmt.Errorf("go to %q: %w", name, err)
		}
		if err := w.directory(name + "/"); err != nil {
			return err
		}
		if err := os.Chdir(".."); err != nil {
			return fmt.Errorf("leave %q: %w", name, err)
		}
	}
	return nil
}

// file describes base in the working directory, called name in the listing.
func (w *walker) file(base, name string) error {
	var st unix.Stat_t
	if err := unix.Lstat(base, &st); err != nil {
		return fmt.Errorf("lstat %q: %w", name, err)
	}
	if w.inodes[st.Ino] == "" {
		w.inodes[st.Ino] = name
	}
	f := File{
		Name: name, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Content: "-", Inode: w.inodes[st.Ino],
		Mtime: Time{st.Mtim.Sec, st.Mtim.Nsec}, Atime: Time{st.Atim.Sec, st.Atim.Nsec}, Ctime: Time{st.Ctim.Sec, st.Ctim.Nsec},
		Links: uint32(st.Nlink), Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev),
	}
	var err error
	switch f.Type() {
	case TypeRegular:
		f.Size = st.Size
		f.Content, err = digestFile(base, st.Size)
	case TypeSymlink:
		f.Size = st.Size
		f.Content, err = os.Readlink(base)
	}
	if err != nil {
		return fmt.Errorf("read %q: %w", name, err)
	}
	if f.Xattrs, err = attributes(base); err != nil {
		return fmt.Errorf("read attributes of %q: %w", name, err)
	}
	w.isDir = f.Type() == TypeDir
	return w.fn(f)
}

func digestFile(path string, size int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return Digest(f, size)
}

// Digest is the sha256 of a file's content; where that would take too long, of
// both its ends.
func Digest(r io.ReaderAt, size int64) (string, error) {
	const large, end = 1 << 30, 1 << 20
	h := sha256.New()
	var err error
	if size < large {
		_, err = io.Copy(h, io.NewSectionReader(r, 0, size))
	} else if _, err = io.Copy(h, io.NewSectionReader(r, 0, end)); err == nil {
		_, err = io.Copy(h, io.NewSectionReader(r, size-end, end))
	}
	return hex.EncodeToString(h.Sum(nil)), err
}

func attributes(path string) (map[string]string, error) {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, names)
	if err != nil || n == 0 {
		return nil, err
	}
	list := make(map[string]string)
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list[name] = string(value[:n])
	}
	return list, nil
}
