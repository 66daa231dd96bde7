// Guest is PID 1 of a test's virtual machine. It loads the modules, mounts the
// partition of the first disk, lists every file on it to the second disk, and
// powers off. Told "change", it writes to the file system before that, in every
// way it can think of.
package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"lab/lab/corpus/listing"
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
	if err := listing.Walk("/mnt/containers", func(f listing.File) error {
		_, err := fmt.Fprintln(w, f)
		return err
	}); err != nil {
		return err
	}
	if slices.Contains(os.Args[1:], "change") {
		if err := change("/mnt/containers"); err != nil {
			return err
		}
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

// change writes to the file system: full directories grow, others are emptied,
// and the free space is filled.
func change(root string) error {
	large := filepath.Join(root, "odd/rootfs/large")
	names, err := os.ReadDir(large)
	if err != nil {
		return err
	}
	for _, e := range names[:1000] { // the hash leads to where it would be
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(large, e.Name()+"-not"), &st); err != unix.ENOENT {
			return fmt.Errorf("look up what is not there: %v", err)
		}
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
