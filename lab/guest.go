package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lab/disk"
	"lab/kernel"
	"lab/kernel/qemu"
	"lab/lab/bundle"
	"lab/oci"
	"lab/probe"
)

// A guest is everything of a trial but its kernel: the images by digest, the
// disk made of them, and the test. One guest serves any number of kernels.
type guest struct {
	emulator emulator
	images   []Image // the base last, where there is one
	disk     disk.Image
	test     probe.Spec
	agent    string
	hold     bool   // it waits, to be saved, before the test
	record   string // path of the recording of what it does; empty for none

	snapshots *snapshots // where it may be restored from, or nil
	saved     string     // what a snapshot of it, and of its kernel, goes by
}

// An Image is a preloaded container and the name it goes by in the guest; the one
// without a name is the guest's base.
type Image = bundle.Image

// A Disk is a disk image and what was put on it.
type Disk struct {
	disk.Image
	Base       *oci.Pin `json:"base,omitempty"` // the root file system around the containers
	Containers []Image  `json:"containers"`
}

// BuildDisk fetches and pins the images and writes them to a disk image at
// path, or into the cache where path is empty.
func (l *Lab) BuildDisk(ctx context.Context, s Spec, path string) (Disk, error) {
	return l.buildDisk(ctx, s, nil, nil, path)
}

// buildDisk is BuildDisk with images that may be pinned already, one for each
// of the Spec's and then the base, and for a disk that may boot by itself.
func (l *Lab) buildDisk(ctx context.Context, s Spec, pinned []Image, boot *disk.Boot, path string) (Disk, error) {
	store, err := l.store()
	if err != nil {
		return Disk{}, err
	}
	return l.diskOf(ctx, store, s, pinned, boot, path)
}

// diskOf is buildDisk with the store that the images are in, or come to.
func (l *Lab) diskOf(ctx context.Context, store *oci.Store, s Spec, pinned []Image, boot *disk.Boot, path string) (Disk, error) {
	var d Disk
	var err error
	spec := disk.Spec{Free: s.Free, Size: s.Size, Epoch: epoch, Boot: boot}
	if s.Base != "" {
		var pin string
		if len(pinned) > len(s.Images) {
			pin = pinned[len(s.Images)].Digest
		}
		img, err := l.image(ctx, store, s, Load{Reference: s.Base}, pin)
		if err != nil {
			return Disk{}, err
		}
		d.Base, spec.Base = &img.Pin, &disk.Container{Digest: img.Pin.Digest, Open: flatten(img, s.Limits)}
	}
	for i, load := range s.Images {
		var pin string
		if i < len(pinned) {
			pin = pinned[i].Digest
		}
		img, err := l.image(ctx, store, s, load, pin)
		if err != nil {
			return Disk{}, err
		}
		whole := img.Pin
		if load.Layers > 0 {
			if img, err = oci.FirstLayers(img, load.Layers); err != nil {
				return Disk{}, err
			}
		}
		c, err := container(load.Name, img, s.Limits)
		if err != nil {
			return Disk{}, fmt.Errorf("image %s: %w", load.Reference, err)
		}
		if boot != nil && load.Name == s.Test.Container && len(s.Test.Command) == 0 && !hasCommand(c.Config) {
			return Disk{}, fmt.Errorf("image %s has no command to run: name one behind --", load.Reference)
		}
		if load.Name == s.Test.Container && slices.Contains(oci.Engines, s.Test.Runtime) {
			c.Store = engineStore(s.Test.Runtime, img, s.Limits)
		}
		d.Containers = append(d.Containers, Image{Name: load.Name, Pin: whole})
		spec.Containers = append(spec.Containers, c)
	}
	d.Image, err = l.writeDisk(ctx, spec, path)
	return d, err
}

// store opens the cache's images.
func (l *Lab) store() (*oci.Store, error) {
	dir, err := l.dir("oci")
	if err != nil {
		return nil, err
	}
	return oci.Open(dir)
}

// image gives the pinned image from the store, or asks its reference. A
// reference that gives another image than the pinned one is an error.
func (l *Lab) image(ctx context.Context, store *oci.Store, s Spec, load Load, pin string) (oci.Image, error) {
	if pin != "" {
		if img, err := store.Get(ctx, pin); err == nil {
			img.Pin.Reference = load.Reference
			return img, nil
		}
	}
	img, err := l.pull(ctx, store, s, load)
	if err == nil && pin != "" && img.Pin.Digest != pin {
		err = fmt.Errorf("image %s was %s at the start and is %s now, and the cache has lost the old one; begin again with the new one", load.Reference, pin, img.Pin.Digest)
	}
	return img, err
}

// epoch is the time of everything on the disk that no layer gives a time.
var epoch = time.Unix(0, 0).UTC()

// container makes an image ready for the disk.
func container(name string, img oci.Image, limits oci.Limits) (disk.Container, error) {
	spec, err := oci.RuntimeSpec(img)
	if err != nil {
		return disk.Container{}, err
	}
	config, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return disk.Container{}, fmt.Errorf("encode runtime config: %w", err)
	}
	return disk.Container{
		Name:   name,
		Digest: img.Pin.Digest,
		Config: config,
		Open:   flatten(img, limits),
	}, nil
}

func flatten(img oci.Image, limits oci.Limits) func(context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) { return limits.Flatten(ctx, img), nil }
}

// engineStore is the store in which an engine of the guest finds an image. Its digest
// names the format, too: it grows with what EngineStore writes.
func engineStore(engine string, img oci.Image, limits oci.Limits) *disk.Container {
	return &disk.Container{
		Name:   engine,
		Digest: "format 1 " + probe.StoreImage + " " + img.Pin.Digest,
		Open: func(ctx context.Context) (io.ReadCloser, error) {
			return limits.EngineStore(ctx, img, engine, probe.StoreImage), nil
		},
	}
}

// prepare makes the guest that a Spec asks for, of the pinned images where
// there are some.
func (l *Lab) prepare(ctx context.Context, s Spec, pinned []Image) (*guest, error) {
	e, err := l.emulator(ctx, s.Machine) // without QEMU there is no use in the rest
	if err != nil {
		return nil, err
	}
	agent, err := l.Agent()
	if err != nil {
		return nil, err
	}
	d, err := l.buildDisk(ctx, s, pinned, nil, "")
	if err != nil {
		return nil, err
	}
	images := d.Containers
	if d.Base != nil {
		images = append(images, Image{Pin: *d.Base})
	}
	return &guest{emulator: e, images: images, disk: d.Image, test: s.Test, agent: agent}, nil
}

// machine is the virtual machine that a kernel is tried on, and the open file that
// its initramfs is in.
func (g *guest) machine(s Spec, k kernel.Kernel) (qemu.Machine, *os.File, error) {
	f, initrd, err := g.memoryInitramfs(k)
	m := g.emulator.Machine
	m.Record = g.record
	m.Kernel, m.Initrd, m.Cmdline = k.Image, initrd, cmdlineOf(m, s.Machine.Cmdline)
	m.Disks = []qemu.Disk{{Path: g.disk.Path, Size: g.disk.Size}}
	m.Clock = g.test.Epoch
	return m, f, err
}

// initramfs writes the archive that boots the guest: the agent as /init, the
// test, and the kernel's modules in the order in which they are loaded.
func (g *guest) initramfs(w io.Writer, k kernel.Kernel) error {
	spec, err := json.Marshal(g.test)
	if err != nil {
		return fmt.Errorf("encode test: %w", err)
	}
	files := []disk.File{
		{Path: "init", Mode: 0o755, Source: g.agent},
		{Path: "lab/spec.json", Mode: 0o644, Data: spec},
	}
	if g.hold {
		files = append(files, disk.File{Path: probe.HoldPath[1:], Mode: 0o644})
	}
	var list strings.Builder
	for _, m := range k.Modules {
		name := path.Join("/lib/modules", filepath.Base(m))
		fmt.Fprintln(&list, name)
		files = append(files, disk.File{Path: name[1:], Mode: 0o644, Source: m})
	}
	if len(k.Modules) > 0 {
		files = append(files, disk.File{Path: "lab/modules", Mode: 0o644, Data: []byte(list.String())})
	}
	return disk.WriteInitramfs(w, files)
}

// memoryInitramfs writes the archive to a file in memory, which is gone with
// us, however we end. QEMU opens it by the path that is given.
func (g *guest) memoryInitramfs(k kernel.Kernel) (f *os.File, path string, err error) {
	fd, err := unix.MemfdCreate("initramfs", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, "", fmt.Errorf("write initramfs: %w", err)
	}
	f = os.NewFile(uintptr(fd), "initramfs")
	if err := g.initramfs(f, k); err != nil {
		f.Close()
		return nil, "", fmt.Errorf("write initramfs: %w", err)
	}
	return f, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd), nil
}
