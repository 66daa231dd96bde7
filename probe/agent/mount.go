//go:build linux

package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// diskLabel is the name of the partition, and of the ext4 file system, that
// holds the containers.
const diskLabel = "lab-root"

// How long the disk may take to appear: lab's own is there when its driver is;
// a USB disk, or one behind a large controller, takes seconds.
const (
	diskLimit    = 10 * time.Second
	anyDiskLimit = 30 * time.Second
)

// mountEarly mounts what everything else needs, on the initramfs.
func mountEarly() error {
	for _, m := range []struct {
		fstype, target string
		flags          uintptr
		data, option   string
	}{
		{"devtmpfs", "/dev", unix.MS_NOSUID, "mode=755", "CONFIG_DEVTMPFS"},
		{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "", "CONFIG_PROC_FS"},
		{"sysfs", "/sys", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "", "CONFIG_SYSFS"},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
		if err := unix.Mount(m.fstype, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.fstype, m.target, lacking(err, m.option))
		}
	}
	return nil
}

// mountDisk waits for the disk, limit at most, mounts it and makes it the root of
// the agent and all that come after it. The initramfs cannot be pivoted away from (pivot_root(2)): the
// disk is moved over it.
func mountDisk(limit time.Duration) (device string, err error) {
	const target = "/root-disk"
	if device, err = waitFor(limit, findDisk); err != nil {
		return "", err
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return "", fmt.Errorf("mount the disk: %w", err)
	}
	if err := unix.Mount(device, target, "ext4", unix.MS_NOATIME, selinuxMountData()); err != nil {
		return "", fmt.Errorf("mount %s as ext4: %w", device, lacking(err, "CONFIG_EXT4_FS"))
	}
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		if err := os.MkdirAll(target+dir, 0o755); err != nil {
			return "", fmt.Errorf("prepare the disk: %w", err)
		}
		if err := unix.Mount(dir, target+dir, "", unix.MS_MOVE, ""); err != nil {
			return "", fmt.Errorf("move %s to the disk: %w", dir, err)
		}
	}
	if err := unix.Chdir(target); err != nil {
		return "", fmt.Errorf("enter the disk: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return "", fmt.Errorf("move the disk to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return "", fmt.Errorf("change the root to the disk: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return "", fmt.Errorf("enter the disk: %w", err)
	}
	return device, nil
}

// findDisk finds the block device that is the partition called lab-root. A
// kernel that tells no partition names is asked by the ext4 label.
func findDisk() (string, error) {
	blocks, err := filepath.Glob("/sys/class/block/*")
	if err != nil {
		return "", err
	}
	var seen []string
	for _, b := range blocks {
		uevent, err := os.ReadFile(b + "/uevent")
		if err != nil {
			continue // it has just gone
		}
		if hasLine(string(uevent), "PARTNAME="+diskLabel) {
			return "/dev/" + filepath.Base(b), nil
		}
	}
	for _, b := range blocks {
		if !isDisk(b) {
			continue
		}
		device := "/dev/" + filepath.Base(b)
		seen = append(seen, describeDisk(b))
		if label, err := ext4Label(device); err == nil && label == diskLabel {
			return device, nil
		}
	}
	idle := idleControllers()
	switch {
	case len(seen) > 0:
		return "", fmt.Errorf("find the disk's partition %s: it is none of %s (does the kernel have CONFIG_EFI_PARTITION?)%s", diskLabel, strings.Join(seen, ", "), idle)
	case idle != "":
		return "", fmt.Errorf("find the disk's partition %s: the kernel sees no disk%s", diskLabel, idle)
	}
	return "", fmt.Errorf("find the disk's partition %s: the kernel sees no disk (does it have CONFIG_VIRTIO_BLK and CONFIG_VIRTIO_PCI?)", diskLabel)
}

func hasLine(text, line string) bool {
	for l := range strings.Lines(text) {
		if strings.TrimRight(l, "\r\n") == line {
			return true
		}
	}
	return false
}

// ext4Label reads the volume label from an ext4 superblock, which lies 1024
// bytes into the device: magic 0xEF53 at 0x38, label of 16 bytes at 0x78
// (Documentation/filesystems/ext4/super.rst).
func ext4Label(device string) (string, error) {
	f, err := os.Open(device)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var super [0x88]byte
	if _, err := f.ReadAt(super[:], 1024); err != nil {
		return "", fmt.Errorf("read superblock of %s: %w", device, err)
	}
	if binary.LittleEndian.Uint16(super[0x38:]) != 0xEF53 {
		return "", fmt.Errorf("read superblock of %s: not ext4", device)
	}
	return unix.ByteSliceToString(super[0x78:0x88]), nil
}

// waitFor calls find until it succeeds or limit is over, and then returns its
// last error. Between the calls it waits for the kernel to announce a change of
// a device (a uevent, netlink(7)), and at most 50 ms, for kernels without.
func waitFor[T any](limit time.Duration, find func() (T, error)) (T, error) {
	v, err := find()
	if err == nil {
		return v, nil
	}
	end := time.Now().Add(limit)
	events, socketErr := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if socketErr == nil {
		defer unix.Close(events)
		socketErr = unix.Bind(events, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1})
	}
	for time.Now().Before(end) {
		if v, err = find(); err == nil {
			return v, nil
		}
		if socketErr != nil {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(events), Events: unix.POLLIN}}, 50); n > 0 {
			buf := make([]byte, 4<<10)
			for {
				if _, err := unix.Read(events, buf); err != nil && !errors.Is(err, unix.EINTR) {
					break // nothing more for now, or too much at once: look again
				}
			}
		}
	}
	return v, err
}
