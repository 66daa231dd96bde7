package qemu

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// nobody is the user and the group that has no rights, on Debian, Fedora and by
// the kernel's own overflow ids (Documentation/admin-guide/sysctl/fs.rst).
const nobody = 65534

const (
	// confinedSpace is what QEMU may map beyond the guest's memory, in bytes:
	// TCG's buffer of translated code (1 GiB at most), libraries and stacks.
	confinedSpace = 6 << 30
	// confinedFile is how large a file QEMU may write beyond the size of its
	// largest disk: the tables of an overlay.
	confinedFile = 64 << 20
)

// confine makes a command of a QEMU that has as little as can be: the files that
// it needs as open descriptors, and, where we are root, another user. What it opens
// is the caller's to close.
//
// Kernel, initramfs and recording are copied to memory, since QEMU opens them by a
// path, and what /proc/self/fd leads to must be readable for the user. A disk is taken over
// as it was opened (qemu-system-x86_64(1), -add-fd).
func (m Machine) confine(cmd *exec.Cmd) (opened []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range opened {
				f.Close()
			}
			err = fmt.Errorf("confine qemu: %w", err)
		}
	}()
	limits := m.limits()
	next := fdConsole + len(cmd.ExtraFiles)
	for _, path := range []*string{&m.Kernel, &m.Initrd, &m.Replay} {
		if *path == "" {
			continue
		}
		f, err := inMemory(*path)
		if err != nil {
			return opened, err
		}
		opened = append(opened, f)
		*path = fmt.Sprintf("/proc/self/fd/%d", next)
		next++
	}
	var sets []string
	m.Disks = append([]Disk(nil), m.Disks...)
	for i := range m.Disks {
		if m.Exact {
			break // they are open already
		}
		f, err := os.Open(m.Disks[i].Path)
		if err != nil {
			return opened, err
		}
		opened = append(opened, f)
		m.Disks[i].Path = fmt.Sprintf("/dev/fdset/%d", i)
		sets = append(sets, "-add-fd", fmt.Sprintf("fd=%d,set=%d", next, i))
		next++
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, opened...)
	cmd.Path, cmd.Args = "/bin/sh", slices.Concat([]string{"sh", "-c", limits, "qemu", cmd.Path}, sets, m.Args())
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody, Groups: kvmGroup(m.Accel)}
	}
	return opened, nil
}

// kvmGroup is the group of /dev/kvm, where KVM is asked for.
func kvmGroup(accel string) []uint32 {
	var st unix.Stat_t
	if accel != "kvm" || unix.Stat("/dev/kvm", &st) != nil {
		return nil
	}
	return []uint32{st.Gid}
}

// inMemory copies a file to one in memory that anybody may read who has it open.
func inMemory(path string) (*os.File, error) {
	from, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	fd, err := unix.MemfdCreate("lab-qemu", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), path)
	_, err = io.Copy(f, from)
	if err == nil {
		err = f.Chmod(0o444)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// limits bound what a confined QEMU may take of the host, as sh's ulimit has them.
// The shell sets them, before it becomes QEMU: on a process of another user only
// CAP_SYS_RESOURCE can.
func (m Machine) limits() string {
	var disk int64
	for _, d := range m.Disks {
		if info, err := os.Stat(d.Path); err == nil {
			disk = max(disk, info.Size())
		}
	}
	blocks := (disk + disk/8 + confinedFile) / 512
	space := int64(orInt(m.Memory, defaultMemory))<<20 + confinedSpace
	if m.Exact {
		for _, d := range m.Disks {
			space += d.dimmSize()
		}
	}
	space /= 1024
	return fmt.Sprintf(`ulimit -c 0; ulimit -n 1024; ulimit -f %d; ulimit -v %d; exec "$@"`, blocks, space)
}
