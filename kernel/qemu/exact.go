package qemu

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ExactModules are the kernel modules, in the order in which they depend on each
// other, with which a Linux sees the disks of an exact machine: ACPI's table of
// NVDIMMs, and their block devices (since Linux 4.2).
var ExactModules = []string{"nfit", "nd_pmem"}

// dimm is what the size of an NVDIMM is a multiple of, in bytes: Linux takes no
// other (drivers/nvdimm/claim.c; SUBSECTION_SIZE of x86).
const dimm = 2 << 20

// dimmSize is the size of the NVDIMM that has the disk.
func (d Disk) dimmSize() int64 { return (d.Size + dimm - 1) / dimm * dimm }

// exactArgs are the arguments of an exact machine in the place of those that say how
// time passes, how large the memory is and what the disks are.
//
// Time is counted in instructions, two nanoseconds each, and the machine does not
// wait for what it has nothing to do until (icount, qemu-system-x86_64(1)); the
// processor's and QEMU's random numbers follow from a seed. A virtio-blk disk is
// read by QEMU's own threads, so that the interrupt comes when the host is ready: an
// NVDIMM is memory, and needs no interrupt.
func (m Machine) exactArgs() (a []string, memory string) {
	memory = fmt.Sprint(orInt(m.Memory, defaultMemory))
	a = []string{"-icount", "shift=1,sleep=off", "-seed", "1"}
	most := int64(orInt(m.Memory, defaultMemory)) << 20
	for i, d := range m.Disks {
		most += d.dimmSize()
		a = append(a,
			"-object", fmt.Sprintf("memory-backend-file,id=disk%d,share=on,size=%d,mem-path=%s", i, d.dimmSize(), escape(d.Path)),
			"-device", fmt.Sprintf("nvdimm,memdev=disk%d", i),
		)
	}
	if len(m.Disks) > 0 {
		memory += fmt.Sprintf(",slots=%d,maxmem=%dM", len(m.Disks), most>>20)
	}
	return a, memory
}

func (m Machine) checkExact() error {
	switch {
	case m.Accel == "kvm":
		return errors.New("check machine: an exact machine takes tcg, not kvm")
	case m.CPUs > 1:
		return fmt.Errorf("check machine: an exact machine has one CPU, not %d", m.CPUs)
	case m.Clock.IsZero():
		return errors.New("check machine: an exact machine needs a clock")
	case m.Snapshots:
		return errors.New("check machine: an exact machine has no snapshots")
	}
	for _, d := range m.Disks {
		if d.Size <= 0 {
			return fmt.Errorf("check machine: an exact machine needs the size of disk %s", d.Path)
		}
	}
	return nil
}

// dimms copies the disks to files in memory, which get the descriptors from next on
// and which the guest may write to: they are gone with QEMU. The machine it returns
// has them as its disks.
func (m Machine) dimms(next int) (Machine, []*os.File, error) {
	disks := make([]Disk, len(m.Disks))
	var files []*os.File
	for i, d := range m.Disks {
		f, err := d.dimm()
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return m, nil, fmt.Errorf("copy disk %s to memory: %w", d.Path, err)
		}
		files = append(files, f)
		disks[i] = Disk{Path: fmt.Sprintf("/proc/self/fd/%d", next+i), Size: d.Size}
	}
	m.Disks = disks
	return m, files, nil
}

func (d Disk) dimm() (f *os.File, err error) {
	from, err := os.Open(d.Path)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != d.Size {
		return nil, fmt.Errorf("it has %d bytes, not %d", info.Size(), d.Size)
	}
	fd, err := unix.MemfdCreate("lab-disk", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f = os.NewFile(uintptr(fd), d.Path)
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	// A QEMU that runs as nobody opens it by its path in /proc.
	if err := errors.Join(f.Truncate(d.dimmSize()), f.Chmod(0o666)); err != nil {
		return nil, err
	}
	return f, copyData(f, from, d.Size)
}

// copyData copies what of a file is not a hole (lseek(2), SEEK_DATA).
func copyData(to io.WriterAt, from *os.File, size int64) error {
	for at := int64(0); at < size; {
		begin, err := unix.Seek(int(from.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // nothing but a hole is left
		}
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}
		end, err := unix.Seek(int(from.Fd()), begin, unix.SEEK_HOLE)
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}
		if _, err := io.Copy(io.NewOffsetWriter(to, begin), io.NewSectionReader(from, begin, end-begin)); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// roomy has a socket hold what a console or a port says while we are not looking, as
// far as we may: a guest whose serial line is full goes on later, and no two runs
// fill it at the same time. One byte of a console takes most of a KiB of it.
func roomy(f *os.File) {
	const bytes = 64 << 20
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, bytes) != nil {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, bytes)
			}
		})
	}
}
