package disk

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"lab/disk/ext4"
)

// The file system's own fixed identity, as for the partition table.
var (
	fsUUID   = [16]byte{0x6c, 0x61, 0x62, 0x64, 0x69, 0x73, 0x4b, 0x00, 0x80, 0, 0, 0, 0, 0, 0, 3}
	hashSeed = [16]byte{0x6c, 0x61, 0x62, 0x64, 0x69, 0x73, 0x4b, 0x00, 0x80, 0, 0, 0, 0, 0, 0, 4}
)

// Build writes the disk image of s to path. The file appears there whole or not
// at all; one that was there is replaced. A full disk is an error that says how
// much room there was.
func Build(ctx context.Context, path string, s Spec) (Image, error) {
	if err := s.validate(); err != nil {
		return Image{}, err
	}
	room := freeSpace(filepath.Dir(path))
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o644))
	if err != nil {
		return Image{}, fmt.Errorf("write disk image %s: %w", path, err)
	}
	defer f.Cleanup()

	image, err := writeImage(ctx, f.File, s)
	if err == nil {
		err = f.CloseAtomicallyReplace()
	}
	if isFull(err) {
		return Image{}, fmt.Errorf("write disk image %s: more than %d MiB needed, %d MiB were free: %w", path, allocated(f.File)>>20, room>>20, err)
	}
	if err != nil {
		return Image{}, fmt.Errorf("write disk image %s: %w", path, err)
	}
	image.Path = path
	return image, nil
}

// writeImage fills an empty file.
func writeImage(ctx context.Context, f *os.File, s Spec) (Image, error) {
	fsys, err := ext4.NewWriter(writeBack(f), partitionStart, ext4.Options{
		UUID:     fsUUID,
		Label:    PartitionName,
		HashSeed: hashSeed,
		Epoch:    s.epoch(),
	})
	if err != nil {
		return Image{}, err
	}
	if s.Base != nil {
		if err := addBase(ctx, fsys, s.Base); err != nil {
			return Image{}, fmt.Errorf("base: %w", err)
		}
	}
	if err := addDirectory(fsys, "containers", s); err != nil {
		return Image{}, err
	}
	for _, c := range s.sorted() {
		if err := addContainer(ctx, fsys, c, s); err != nil {
			return Image{}, fmt.Errorf("container %s: %w", c.Name, err)
		}
	}
	partition, err := closeRoot(fsys, s)
	if err != nil {
		return Image{}, err
	}
	var esp int64
	if s.Boot != nil {
		if esp, err = writeESP(ctx, f, partitionStart+partition, s.Boot, s.epoch()); err != nil {
			return Image{}, err
		}
	}
	size, err := writeTable(f, partition, esp)
	if err != nil {
		return Image{}, err
	}
	return Image{Size: size}, nil
}

// closeRoot ends the ext4 file system and returns its size.
func closeRoot(fsys *ext4.Writer, s Spec) (int64, error) {
	if s.Size == 0 {
		return fsys.Close(s.Free)
	}
	size := s.Size - partitionStart - backupSize
	if s.Boot != nil {
		esp, err := s.Boot.size()
		if err != nil {
			return 0, err
		}
		size -= esp
	}
	if size <= 0 {
		return 0, fmt.Errorf("a disk of %d MiB has no room for a file system", s.Size/mib)
	}
	return size, fsys.CloseSize(size)
}

func addBase(ctx context.Context, fsys *ext4.Writer, base *Container) error {
	if err := addTar(ctx, fsys, "", base); err != nil {
		return err
	}
	if fsys.Has("containers") {
		return errors.New("it has a /containers of its own, where the disk has its containers")
	}
	return nil
}

func addContainer(ctx context.Context, fsys *ext4.Writer, c Container, s Spec) error {
	dir := "containers/" + c.Name
	if err := addDirectory(fsys, dir+"/rootfs", s); err != nil {
		return err
	}
	config := tar.Header{
		Typeflag: tar.TypeReg,
		Name:     dir + "/config.json",
		Mode:     0o644,
		Size:     int64(len(c.Config)),
		ModTime:  s.epoch(),
	}
	if err := fsys.Add(&config, bytes.NewReader(c.Config)); err != nil {
		return err
	}
	if err := addTar(ctx, fsys, dir+"/rootfs", &c); err != nil || c.Store == nil {
		return err
	}
	dir += "/" + c.Store.Name
	if err := addDirectory(fsys, dir, s); err != nil {
		return err
	}
	return addTar(ctx, fsys, dir, c.Store)
}

// addTar adds a root file system below a directory.
func addTar(ctx context.Context, fsys *ext4.Writer, dir string, c *Container) error {
	stream, err := c.Open(ctx)
	if err != nil {
		return fmt.Errorf("open root file system: %w", err)
	}
	// A stream that waits for more would not look at the context.
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	err = fsys.AddTar(dir, &contextReader{ctx, stream})
	if stop() {
		err = errors.Join(err, stream.Close())
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func addDirectory(fsys *ext4.Writer, name string, s Spec) error {
	return fsys.Add(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: s.epoch()}, nil)
}

// contextReader ends with the context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(b []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(b)
}

// digestSparse is the sha256 of a file's bytes. Holes are not read.
func digestSparse(ctx context.Context, f *os.File, size int64) (string, error) {
	h := sha256.New()
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO):
			data = size // a hole to the end
		case err != nil:
			data = at // no such thing here: it is all data
		}
		for at < data {
			n := min(data-at, int64(len(zeros)))
			h.Write(zeros[:n])
			at += n
		}
		hole, err := unix.Seek(int(f.Fd()), at, unix.SEEK_HOLE)
		if err != nil {
			hole = size
		}
		n, err := io.Copy(h, &contextReader{ctx, io.NewSectionReader(f, at, hole-at)})
		if err != nil {
			return "", err
		}
		at += n
	}
	return fmt.Sprintf("sha256:%x", h.Sum(nil)), nil
}

// isFull tells whether an error is a full disk, a quota or a limit of file size.
func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

// freeSpace is what a user may still write below dir, in bytes; 0 when that is
// not known.
func freeSpace(dir string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0
	}
	return int64(st.Bavail) * st.Bsize
}

// allocated is what a file takes on its disk, in bytes.
func allocated(f *os.File) int64 {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0
	}
	return st.Blocks * 512
}
