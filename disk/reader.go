package disk

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/diskfs/go-diskfs/partition/mbr"
	"golang.org/x/sys/unix"

	"lab/disk/ext4"
)

// A Reader is a disk image that is open to be looked into: one of ours, or
// anyone's with a GPT or MBR partition table, or with a file system and no
// table. Nothing is mounted and nothing is trusted.
type Reader struct {
	Path       string
	Size       int64  // of the file, in bytes
	Table      string // gpt, mbr, or "" where there is none
	GUID       string // of a GPT
	Partitions []Partition

	f *os.File
}

// A Partition is a part of a disk image. An image without a table is one
// partition, number 0, as large as the file.
type Partition struct {
	Number     int    `json:"number"`
	Name       string `json:"name,omitempty"`
	Type       string `json:"type,omitempty"` // GUID of a GPT's, two hexadecimal digits of an MBR's
	GUID       string `json:"guid,omitempty"`
	Start      int64  `json:"start"` // in bytes, as is
	Size       int64  `json:"size"`
	FileSystem string `json:"fileSystem,omitempty"` // ext4 (or its elders), fat32, or not known
}

// File systems that a Reader reads.
const (
	FileSystemExt4  = "ext4"
	FileSystemFAT32 = "fat32"
)

// Open opens a disk image and reads its partition table.
func Open(name string) (*Reader, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a fifo is refused, not waited for
	if err != nil {
		return nil, fmt.Errorf("open disk image: %w", err)
	}
	r := &Reader{Path: name, f: f}
	if err := r.open(); err != nil {
		f.Close()
		return nil, fmt.Errorf("read disk image %s: %w", name, err)
	}
	return r, nil
}

// Close closes the file. What was opened from it is then of no use.
func (r *Reader) Close() error { return r.f.Close() }

func (r *Reader) open() error {
	info, err := r.f.Stat()
	if err != nil {
		return err
	}
	if kind := info.Mode().Type(); kind != 0 && kind != fs.ModeDevice {
		return fmt.Errorf("it is neither a regular file nor a block device")
	}
	if r.Size, err = r.f.Seek(0, io.SeekEnd); err != nil {
		return err
	}

	head := make([]byte, 2*sectorSize)
	if _, err := io.ReadFull(io.NewSectionReader(r.f, 0, r.Size), head); err != nil {
		return fmt.Errorf("%d bytes are too few for a disk", r.Size)
	}
	switch {
	case string(head[sectorSize:][:8]) == "EFI PART":
		err = r.readGPT()
	case ext4.IsFileSystem(r.f):
		r.Partitions = []Partition{{Size: r.Size}}
	case string(head[510:512]) == "\x55\xaa":
		err = r.readMBR()
	default:
		err = fmt.Errorf("there is neither a partition table nor an ext4 file system on it")
	}
	if err != nil {
		return err
	}
	for i := range r.Partitions {
		p := &r.Partitions[i]
		p.FileSystem = fileSystem(io.NewSectionReader(r.f, p.Start, p.Size))
	}
	return nil
}

// fileSystem tells what is in a partition by its magic numbers.
func fileSystem(r io.ReaderAt) string {
	var fat [8]byte
	if _, err := r.ReadAt(fat[:], 0x52); err == nil && string(fat[:]) == "FAT32   " {
		return FileSystemFAT32
	}
	if ext4.IsFileSystem(r) {
		return FileSystemExt4
	}
	return ""
}

// maxPartitions is eight times of what tools leave room for.
const maxPartitions = 1024

func (r *Reader) readGPT() (err error) {
	defer guard("partition table", &err)
	// The library makes room for as many entries as either header says.
	for _, at := range []int64{sectorSize, r.Size/sectorSize*sectorSize - sectorSize} {
		var b [sectorSize]byte
		if _, err := r.f.ReadAt(b[:], at); err != nil {
			return fmt.Errorf("partition table: %w", err)
		}
		count, size := binary.LittleEndian.Uint32(b[80:]), binary.LittleEndian.Uint32(b[84:])
		if string(b[:8]) == "EFI PART" && (count > maxPartitions || size != gpt.PartitionEntrySize) {
			return fmt.Errorf("partition table has room for %d entries of %d bytes each", count, size)
		}
	}
	table, err := gpt.Read(file.New(r.f, true), sectorSize, sectorSize)
	if err != nil {
		return fmt.Errorf("partition table: %w", err)
	}
	r.Table, r.GUID = "gpt", table.GUID
	for _, p := range table.Partitions {
		last := uint64(r.Size / sectorSize)
		if p == nil || p.Type == gpt.Unused {
			continue
		}
		if p.Start > p.End || p.End >= last {
			return fmt.Errorf("partition %d ends at sector %d, the disk has %d: it is cut off", p.Index, p.End, last)
		}
		r.Partitions = append(r.Partitions, Partition{
			Number: p.Index,
			Name:   p.Name,
			Type:   string(p.Type),
			GUID:   p.GUID,
			Start:  int64(p.Start) * sectorSize,
			Size:   int64(p.End-p.Start+1) * sectorSize,
		})
	}
	return nil
}

func (r *Reader) readMBR() (err error) {
	defer guard("partition table", &err)
	table, err := mbr.Read(file.New(r.f, true), sectorSize, sectorSize)
	if err != nil {
		return fmt.Errorf("partition table: %w", err)
	}
	r.Table = "mbr"
	for i, p := range table.Partitions {
		if p == nil || p.Type == mbr.Empty || p.Size == 0 {
			continue
		}
		start, size := int64(p.Start)*sectorSize, int64(p.Size)*sectorSize
		if start+size > r.Size {
			return fmt.Errorf("partition %d ends at byte %d, the disk has %d: it is cut off", i+1, start+size, r.Size)
		}
		r.Partitions = append(r.Partitions, Partition{Number: i + 1, Type: fmt.Sprintf("%02x", byte(p.Type)), Start: start, Size: size})
	}
	return nil
}

// guard makes an error of a panic, for the library's readers were not made for
// images that someone made up.
func guard(what string, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%s is malformed: %v", what, p)
	}
}

// Tree opens the file system in a partition, by the partition's name or number.
// "" is lab-root, or where there is none the only one with ext4.
func (r *Reader) Tree(partition string) (*Tree, error) {
	p, err := r.find(partition)
	if err != nil {
		return nil, fmt.Errorf("read disk image %s: %w", r.Path, err)
	}
	return r.tree(p)
}

func (r *Reader) tree(p Partition) (*Tree, error) {
	t := &Tree{Partition: p, image: r.Path}
	section := io.NewSectionReader(r.f, p.Start, p.Size)
	var err error
	switch p.FileSystem {
	case FileSystemExt4:
		t.volume, err = newExtVolume(section)
	case FileSystemFAT32:
		t.volume, err = newFATVolume(r.f, p)
	default:
		err = fmt.Errorf("neither ext4 nor FAT32 is in it")
	}
	if err != nil {
		return nil, fmt.Errorf("read disk image %s: %s: %w", r.Path, p, err)
	}
	return t, nil
}

func (p Partition) String() string {
	switch {
	case p.Number == 0:
		return "file system"
	case p.Name == "":
		return fmt.Sprintf("partition %d", p.Number)
	}
	return fmt.Sprintf("partition %d (%s)", p.Number, p.Name)
}

func (r *Reader) find(want string) (Partition, error) {
	var found, ext []Partition
	var all []string
	for _, p := range r.Partitions {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%d %s", p.Number, p.Name)))
		if p.FileSystem == FileSystemExt4 {
			ext = append(ext, p)
		}
		if want == "" && p.Name == PartitionName || want != "" && (p.Name == want || strconv.Itoa(p.Number) == want) {
			found = append(found, p)
		}
	}
	if want == "" && len(found) == 0 {
		found = ext
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0 && want == "":
		return Partition{}, fmt.Errorf("none of its partitions has an ext4 file system: %s", strings.Join(all, ", "))
	case len(found) == 0:
		return Partition{}, fmt.Errorf("it has no partition %q, only %s", want, strings.Join(all, ", "))
	case want == "":
		return Partition{}, fmt.Errorf("several of its partitions could be meant, name one: %s", strings.Join(all, ", "))
	}
	return Partition{}, fmt.Errorf("partition %q is there twice, name it by number", want)
}

// ContainerRoot is where a container's root file system is on a disk of ours.
func ContainerRoot(name string) string { return "/" + path.Join(containersDir, name, rootfsDir) }

// containerNames is how many of the names in a path lead to the root file system
// of the container that it is in, 0 for a path that is in none.
func containerNames(names []string) int {
	if len(names) >= 3 && names[0] == containersDir && names[1] != ".." && names[2] == rootfsDir {
		return 3
	}
	return 0
}

const (
	containersDir = "containers"
	rootfsDir     = "rootfs"
)

// raw is all bytes of a partition.
func (r *Reader) raw(p *Partition) *Content {
	return &Content{ReaderAt: io.NewSectionReader(r.f, p.Start, p.Size), Size: p.Size}
}

// Digest is "sha256:…" of the file's bytes. Holes are not read.
func (r *Reader) Digest(ctx context.Context) (string, error) {
	digest, err := digestSparse(ctx, r.f, r.Size)
	if err != nil {
		return "", fmt.Errorf("read disk image %s: %w", r.Path, err)
	}
	return digest, nil
}
