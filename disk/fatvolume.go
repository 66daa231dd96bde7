package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat12"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
)

// fatVolume is a FAT32 file system, as EFI system partitions have it. go-diskfs
// reads it, after checkFAT has seen that this comes to an end.
type fatVolume struct {
	fs    *fat32.FileSystem
	f     *os.File
	start int64 // of the partition, in bytes
	size  int64
	free  int64 // clusters
	// dirs are the directories that were listed, by where they begin: one that is
	// in two places would be a loop.
	dirs map[int64]string
}

const (
	// A file allocation table of 64 MiB is for 16 million clusters.
	maxFAT = 64 << 20
	// maxFATDir is what the FAT specification allows for one directory: 65536
	// entries of 32 bytes.
	maxFATDir = 2 << 20
)

func newFATVolume(f *os.File, p Partition) (v volume, err error) {
	defer guard("FAT32 file system", &err)
	free, err := checkFAT(io.NewSectionReader(f, p.Start, p.Size))
	if err != nil {
		return nil, fmt.Errorf("FAT32 file system: %w", err)
	}
	fs, err := fat32.Read(file.New(f, true), p.Size, p.Start, sectorSize)
	if err != nil {
		return nil, fmt.Errorf("FAT32 file system: %w", err)
	}
	return &fatVolume{fs: fs, f: f, start: p.Start, size: p.Size, free: free, dirs: make(map[int64]string)}, nil
}

// checkFAT looks at the file allocation table as a whole, before go-diskfs
// makes room for it and follows its chains wherever they lead. It counts the
// clusters that are free.
func checkFAT(r *io.SectionReader) (free int64, err error) {
	le := binary.LittleEndian
	boot := make([]byte, sectorSize)
	if _, err := r.ReadAt(boot, 0); err != nil {
		return 0, err
	}
	// Microsoft's FAT Specification, section 3.1 and 3.3.
	sector, perCluster, reserved, fats := int64(le.Uint16(boot[11:])), int64(boot[13]), int64(le.Uint16(boot[14:])), int64(boot[16])
	size, root := int64(le.Uint32(boot[36:]))*sector, le.Uint32(boot[44:])
	data := reserved*sector + fats*size
	switch {
	case sector != sectorSize || perCluster == 0 || perCluster&(perCluster-1) != 0 || fats != 2 || root != 2:
		return 0, fmt.Errorf("sectors of %d bytes, clusters of %d sectors, %d tables and the root at cluster %d are not read here", sector, perCluster, fats, root)
	case size < sector || size > maxFAT || data >= r.Size():
		return 0, fmt.Errorf("table of %d bytes", size)
	}
	b := make([]byte, size)
	if _, err := r.ReadAt(b, reserved*sector); err != nil {
		return 0, err
	}
	clusters := size / 4                             // that the table is for; the first two are none
	there := (r.Size()-data)/(perCluster*sector) + 2 // that the partition has
	next := func(n int64) int64 { return int64(le.Uint32(b[n*4:])) & 0x0fffffff }
	const end = 0x0ffffff8 // and above: the last of a chain
	// Every cluster comes after at most one other, and every chain has a first
	// one: then there is no way in a circle.
	follows := make([]bool, clusters)
	unused := int64(0)
	for n := int64(2); n < clusters; n++ {
		to := next(n)
		switch {
		case to == 0:
			unused++
			if n < there {
				free++
			}
		case to >= end || to == 0x0ffffff7: // a bad cluster, which is not in use
		case to < 2 || to >= clusters:
			return 0, fmt.Errorf("cluster %d leads to %d, there are %d", n, to, clusters)
		case follows[to]:
			return 0, fmt.Errorf("cluster %d comes after two others", to)
		default:
			follows[to] = true
		}
	}
	seen := unused
	for n := int64(2); n < clusters; n++ {
		if follows[n] || next(n) == 0 {
			continue
		}
		for at := n; ; at = next(at) {
			seen++
			if to := next(at); to < 2 || to >= clusters {
				break
			}
		}
	}
	if seen < clusters-2 {
		return 0, errors.New("clusters follow each other in a circle")
	}
	length := int64(1)
	for at := int64(2); next(at) >= 2 && next(at) < clusters; at = next(at) {
		length++
	}
	if size := length * perCluster * sector; size > maxFATDir {
		return 0, fmt.Errorf("root directory of %d bytes", size)
	}
	return free, nil
}

func (v *fatVolume) usage() Usage {
	cluster := int64(v.fs.BytesPerCluster())
	return Usage{Label: strings.TrimSpace(v.fs.Label()), BlockSize: cluster, Size: v.size, Free: v.free * cluster}
}

func (v *fatVolume) root() (Stat, error) {
	began := time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC) // FAT's time; the root has none
	return Stat{Path: "/", Mode: TypeDir | 0o755, Atime: began, Mtime: began, Ctime: began, Links: 1}, nil
}

func (v *fatVolume) names(dir *Stat) (list []entry, err error) {
	defer guard("directory", &err)
	begin := int64(v.fs.DataStart()) // of the root, at cluster 2
	if dir.Path != "/" {             // of the root checkFAT has seen the size
		where, err := v.ranges(dir.Path)
		if err != nil {
			return nil, err
		}
		if size := rangesSize(where); size > maxFATDir {
			return nil, fmt.Errorf("the directory has %d bytes", size)
		}
		begin = int64(where[0].Offset)
	}
	if at, ok := v.dirs[begin]; ok && at != dir.Path {
		return nil, fmt.Errorf("the same directory is at %q too", at)
	}
	v.dirs[begin] = dir.Path
	p := strings.TrimPrefix(dir.Path, "/")
	if p == "" {
		p = "."
	}
	found, err := v.fs.ReadDir(p)
	if err != nil {
		return nil, err
	}
	for _, d := range found {
		info, err := d.Info()
		if err != nil {
			return nil, err
		}
		name := d.Name()
		if name == "" || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." {
			return nil, fmt.Errorf("an entry has the name %q", name)
		}
		f := &Stat{Mode: TypeRegular | 0o755, Size: info.Size(), Atime: info.ModTime(), Mtime: info.ModTime(), Ctime: info.ModTime(), Links: 1}
		if d.IsDir() {
			f.Mode, f.Size = TypeDir|0o755, 0
		}
		list = append(list, entry{name: name, file: f})
	}
	return list, nil
}

func (v *fatVolume) stat(e entry) (Stat, error) { return *e.file, nil }

// ranges tells where a file or directory lies in the partition. Its directory
// has been looked at before.
func (v *fatVolume) ranges(p string) ([]fat12.DiskRange, error) {
	f, err := openFAT(v.fs, strings.TrimPrefix(p, "/"), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return f.GetDiskRanges()
}

func rangesSize(ranges []fat12.DiskRange) (size int64) {
	for _, r := range ranges {
		size += int64(r.Length)
	}
	return size
}

func (v *fatVolume) content(f *Stat) (c *Content, err error) {
	defer guard("file", &err)
	if f.Size == 0 {
		return &Content{ReaderAt: strings.NewReader("")}, nil
	}
	where, err := v.ranges(f.Path)
	if err != nil {
		return nil, err
	}
	if size := rangesSize(where); f.Size > size {
		return nil, fmt.Errorf("the file has %d bytes in clusters for %d", f.Size, size)
	}
	return &Content{ReaderAt: fatContent{v, where, f.Size}, Size: f.Size}, nil
}

func (v *fatVolume) xattrs(*Stat) (map[string]string, error) { return nil, nil }

// fatContent reads a file from where it lies: the library's Read takes each
// cluster on its own, after all of the file's chain.
type fatContent struct {
	v     *fatVolume
	where []fat12.DiskRange
	size  int64
}

func (c fatContent) ReadAt(b []byte, off int64) (int, error) {
	if off >= c.size {
		return 0, io.EOF
	}
	short := off+int64(len(b)) > c.size
	b = b[:min(int64(len(b)), c.size-off)]
	done := 0
	for _, r := range c.where {
		if off >= int64(r.Length) {
			off -= int64(r.Length)
			continue
		}
		part := b[done:min(int64(len(b)), int64(done)+int64(r.Length)-off)]
		at := int64(r.Offset) + off
		if at < 0 || at+int64(len(part)) > c.v.size {
			return done, fmt.Errorf("byte %d is outside of the partition", at)
		}
		n, err := c.v.f.ReadAt(part, c.v.start+at)
		if done += n; err != nil {
			return done, err
		}
		if off = 0; done == len(b) {
			break
		}
	}
	if short {
		return done, io.EOF
	}
	return done, nil
}
