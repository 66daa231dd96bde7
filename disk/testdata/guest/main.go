// Guest is PID 1 of a test's virtual machine. It loads the modules, mounts the
// partition of the first disk, lists every file on it to the second disk, writes
// to the file system in every way it can think of, and powers off.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: only for a virtual machine")
		os.Exit(1)
	}
	if err := run(); err != nil {
		fmt.Println("GUEST FAILED:", err)
	} else {
		fmt.Println("GUEST DONE")
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	if err := unix.Mount("dev", "/dev", "devtmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	modules, err := os.ReadFile("/modules/order")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(modules)) {
		f, err := os.Open("/modules/" + name)
		if err != nil {
			return err
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
		f.Close()
	}
	if err := unix.Mount("/dev/vda1", "/mnt", "ext4", unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount /dev/vda1: %w", err)
	}
	out, err := os.OpenFile("/dev/vdb", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(out, 1<<20)
	free, err := available()
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "available", free)
	if err := list(w, "/mnt/containers"); err != nil {
		return err
	}
	if err := change("/mnt/containers"); err != nil {
		return err
	}
	if err := unix.Unmount("/mnt", 0); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	fmt.Fprintln(w, "end")
	if err := w.Flush(); err != nil {
		return err
	}
	return out.Sync()
}

// list writes a line for every file, in the order of the paths: what lstat(2)
// says, a name for the inode, the digest of the content and the attributes.
func list(w io.Writer, root string) error {
	inodes := make(map[uint64]string)
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("lstat %q: %w", path, err)
		}
		name := strings.TrimPrefix(path, root+"/")
		if inodes[st.Ino] == "" {
			inodes[st.Ino] = name
		}
		size, content := st.Size, "-"
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			size = 0
		case unix.S_IFREG:
			content, err = digest(path, st.Size)
		case unix.S_IFLNK:
			content, err = os.Readlink(path)
		}
		if err != nil {
			return fmt.Errorf("read %q: %w", path, err)
		}
		xattrs, err := attributes(path)
		if err != nil {
			return fmt.Errorf("read attributes of %q: %w", path, err)
		}
		_, err = fmt.Fprintf(w, "file %q mode=%o owner=%d:%d size=%d mtime=%d.%09d atime=%d.%09d ctime=%d.%09d links=%d rdev=%d:%d inode=%q content=%q xattrs=%s\n",
			name, st.Mode, st.Uid, st.Gid, size, st.Mtim.Sec, st.Mtim.Nsec, st.Atim.Sec, st.Atim.Nsec, st.Ctim.Sec, st.Ctim.Nsec,
			st.Nlink, unix.Major(st.Rdev), unix.Minor(st.Rdev), inodes[st.Ino], content, xattrs)
		return err
	})
}

// digest is of the whole content, or of both ends of what would take too long.
func digest(path string, size int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if size < 1<<30 {
		_, err = io.Copy(h, f)
	} else {
		const end = 1 << 20
		if _, err = io.Copy(h, io.NewSectionReader(f, 0, end)); err == nil {
			_, err = io.Copy(h, io.NewSectionReader(f, size-end, end))
		}
	}
	return hex.EncodeToString(h.Sum(nil)), err
}

func attributes(path string) (string, error) {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		return "", err
	}
	var list []string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", err
		}
		list = append(list, fmt.Sprintf("%q=%x", name, value[:n]))
	}
	slices.Sort(list)
	return strings.Join(list, ","), nil
}

// change writes to the file system: full directories grow, others are emptied,
// and the free space is filled.
func change(root string) error {
	large := filepath.Join(root, "odd/rootfs/large")
	names, err := os.ReadDir(large)
	if err != nil {
		return err
	}
	for i := range 5000 {
		if err := os.WriteFile(filepath.Join(large, "new-"+strconv.Itoa(i)), []byte("new"), 0o644); err != nil {
			return err
		}
	}
	for _, e := range names[:len(names)/2] {
		if err := os.Remove(filepath.Join(large, e.Name())); err != nil {
			return err
		}
	}
	odd := filepath.Join(root, "odd/rootfs")
	for _, step := range []func() error{
		func() error { return os.MkdirAll(filepath.Join(odd, strings.Repeat("deep/", 100)), 0o755) },
		func() error { return os.Rename(large, filepath.Join(odd, "renamed")) },
		func() error { return os.Link(filepath.Join(odd, "hard/target"), filepath.Join(odd, "hard/more")) },
		func() error { return os.Truncate(filepath.Join(odd, "sparse"), 12345) },
		func() error { return os.Truncate(filepath.Join(odd, "fragments"), 999*4096) },
		func() error { return os.WriteFile(filepath.Join(odd, "xattr/shared2"), []byte("data"), 0o644) },
		func() error {
			return unix.Setxattr(filepath.Join(odd, "xattr/shared2"), "user.more", make([]byte, 500), 0)
		},
		func() error { return unix.Removexattr(filepath.Join(odd, "xattr/shared3"), "user.big") },
		func() error { return unix.Mkfifo(filepath.Join(odd, "new-fifo"), 0o600) },
		func() error { return os.Symlink(strings.Repeat("s", 3000), filepath.Join(odd, "new-symlink")) },
		func() error { return os.RemoveAll(filepath.Join(root, "debian/rootfs/usr/share")) },
		func() error { return fill(filepath.Join(root, "filler")) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// available is the free space that statfs(2) promises.
func available() (int64, error) {
	var st unix.Statfs_t
	err := unix.Statfs("/mnt", &st)
	return int64(st.Bavail) * st.Bsize, err
}

// fill writes a file as large as what is available, but for its own bookkeeping.
func fill(path string) error {
	unix.Sync() // delayed allocation has not counted all
	size, err := available()
	if err != nil {
		return err
	}
	size -= 1 << 20
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = byte(i)
	}
	for ; size > 0; size -= int64(len(b)) {
		if _, err := f.Write(b[:min(size, int64(len(b)))]); err != nil {
			return err
		}
	}
	return f.Sync()
}
