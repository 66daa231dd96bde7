package disk

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/pe"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat12"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
)

// A Boot makes a disk start by itself on any machine with UEFI firmware: a
// kernel, its initramfs and its command line, and systemd-boot to start them.
//
// They go into an EFI system partition, a FAT32 file system behind the ext4
// partition, at the paths where firmware and boot loader look for them (UEFI
// Specification, section 3.5.1.1 "Removable Media Boot Behavior", and the UAPI
// group's Boot Loader Specification, "Type #1"):
//
//	/EFI/BOOT/BOOTX64.EFI       the loader
//	/loader/loader.conf         its settings
//	/loader/entries/lab.conf    title, kernel, initramfs, command line
//	/lab/vmlinuz                the kernel, which must have an EFI stub
//	/lab/initramfs
//
// All of them can be looked at and replaced with any tool that knows FAT: to
// boot another kernel, or with other parameters, is to copy a file.
type Boot struct {
	Loader    BootFile // systemd-boot for the machine: systemd-bootx64.efi
	Kernel    BootFile // a bzImage with an EFI stub
	Initramfs BootFile
	Cmdline   string // the kernel's command line, at most 2000 bytes
	Title     string // what the loader's menu calls it
}

// A BootFile is a file on this host that goes onto the EFI system partition.
type BootFile struct {
	Path string `json:"path"`
	// Digest is sha256:… of its bytes. It stands for the file in the spec's
	// digest, and a file that turns out to be another is an error.
	Digest string `json:"digest"`
}

// BootPartitionName is the GPT name of the EFI system partition, and in capital
// letters the label of its file system.
const BootPartitionName = "lab-esp"

const (
	// menuSeconds is how long the loader shows its menu before it goes on.
	menuSeconds = 3

	maxBootFile = 2 << 30 // bytes of one file; more than any firmware loads
	// maxBootCmdline leaves some room of the 2047 bytes that x86 kernels take:
	// the loader adds initrd=….
	maxBootCmdline = 2000

	mib = 1 << 20
	// A FAT with fewer than 65525 clusters is FAT16 to whoever follows the
	// book (Microsoft's FAT Specification, section 3.5), and go-diskfs makes
	// clusters of 512 bytes up to 260 MiB and of 4096 above: 66512 clusters here.
	minESP        = 33 * mib
	smallClusters = 260 * mib
)

// efiMachines are the names by which firmware finds the loader on a medium that
// it was told nothing about, by the loader's own machine type (UEFI
// Specification, table 3.2).
var efiMachines = map[uint16]string{
	pe.IMAGE_FILE_MACHINE_AMD64: "BOOTX64.EFI",
	pe.IMAGE_FILE_MACHINE_ARM64: "BOOTAA64.EFI",
	pe.IMAGE_FILE_MACHINE_I386:  "BOOTIA32.EFI",
}

// writeDigest adds all that decides the partition's bytes.
func (b *Boot) writeDigest(put func([]byte)) {
	for _, s := range []string{"boot", b.Loader.Digest, b.Kernel.Digest, b.Initramfs.Digest, b.Cmdline, b.Title} {
		put([]byte(s))
	}
}

// validate says what cannot be, before anything is written.
func (b *Boot) validate() error {
	for what, text := range map[string]string{"command line": b.Cmdline, "title": b.Title} {
		if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f }); i >= 0 {
			return fmt.Errorf("check disk spec: boot %s %q has a character at byte %d that is not printable ASCII", what, text, i)
		}
	}
	if len(b.Cmdline) > maxBootCmdline {
		return fmt.Errorf("check disk spec: boot command line of %d bytes, at most %d are allowed", len(b.Cmdline), maxBootCmdline)
	}
	files, err := b.open()
	if err != nil {
		return err
	}
	closeAll(files)
	return nil
}

// An espFile is a file of the partition, from the host or of a few bytes.
type espFile struct {
	path string
	size int64
	src  *os.File // or
	data []byte
	want string // the digest that src must have
}

// open opens the files of the partition, in the order in which they are written.
func (b *Boot) open() (files []espFile, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
		}
	}()
	for _, f := range []struct {
		what, path string
		from       BootFile
	}{{"boot loader", "", b.Loader}, {"kernel", "/lab/vmlinuz", b.Kernel}, {"initramfs", "/lab/initramfs", b.Initramfs}} {
		src, err := os.Open(f.from.Path)
		if err != nil {
			return files, fmt.Errorf("open %s: %w", f.what, err)
		}
		files = append(files, espFile{path: f.path, src: src, want: f.from.Digest})
		info, err := src.Stat()
		if err != nil {
			return files, fmt.Errorf("open %s: %w", f.what, err)
		}
		if !info.Mode().IsRegular() || info.Size() == 0 || info.Size() > maxBootFile {
			return files, fmt.Errorf("open %s %s: not a file of 1 byte to %d GiB", f.what, f.from.Path, maxBootFile>>30)
		}
		files[len(files)-1].size = info.Size()
	}
	name, err := loaderName(files[0].src)
	if err != nil {
		return files, fmt.Errorf("read boot loader %s: %w", b.Loader.Path, err)
	}
	files[0].path = "/EFI/BOOT/" + name
	for _, f := range []struct{ path, text string }{
		{"/loader/loader.conf", fmt.Sprintf("default lab.conf\ntimeout %d\nconsole-mode keep\n", menuSeconds)},
		{"/loader/entries/lab.conf", fmt.Sprintf("title %s\nlinux /lab/vmlinuz\ninitrd /lab/initramfs\noptions %s\n", b.Title, b.Cmdline)},
	} {
		files = append(files, espFile{path: f.path, data: []byte(f.text), size: int64(len(f.text))})
	}
	return files, nil
}

func closeAll(files []espFile) {
	for _, f := range files {
		if f.src != nil {
			f.src.Close()
		}
	}
}

// loaderName is what a loader must be called for firmware to find it.
func loaderName(r io.ReaderAt) (string, error) {
	f, err := pe.NewFile(r)
	if err != nil {
		return "", fmt.Errorf("not an EFI program: %w", err)
	}
	name, ok := efiMachines[f.Machine]
	if !ok {
		return "", fmt.Errorf("an EFI program for machine type %#x, which has no name to be booted by", f.Machine)
	}
	return name, nil
}

// size is the partition's, in bytes.
func (b *Boot) size() (int64, error) {
	files, err := b.open()
	if err != nil {
		return 0, err
	}
	defer closeAll(files)
	return espSize(files), nil
}

// espSize is the size in bytes of a partition that holds the files: whole MiB,
// with one to spare.
func espSize(files []espFile) int64 {
	size := fatSize(files, 512)
	if size > smallClusters {
		size = max(fatSize(files, 4096), smallClusters+mib)
	}
	return max(size, minESP)
}

// fatSize counts clusters: those of the files and one for each folder, eight
// bytes of allocation tables for each, and what stands before them.
func fatSize(files []espFile, cluster int64) int64 {
	const folders, reserved = 6, 64 << 10
	clusters := int64(folders)
	for _, f := range files {
		clusters += (f.size + cluster - 1) / cluster
	}
	return (clusters*(cluster+8) + reserved + 2*mib - 1) / mib * mib
}

// writeESP writes the EFI system partition at start of an image file, and
// returns its size. The epoch is the time of everything in it, in UTC; FAT
// begins with 1980.
func writeESP(ctx context.Context, f *os.File, start int64, b *Boot, epoch time.Time) (int64, error) {
	files, err := b.open()
	if err != nil {
		return 0, err
	}
	defer closeAll(files)
	size := espSize(files)
	if err := f.Truncate(start + size); err != nil {
		return 0, err
	}
	out := &tableFile{WritableFile: f, file: f}
	if err := writeFAT(ctx, storage{file.New(f, false), out}, f, start, size, files, epoch); err != nil {
		if out.err != nil { // the library keeps only its text
			err = out.err
		}
		return 0, fmt.Errorf("write EFI system partition: %w", err)
	}
	return size, nil
}

// storage is a file whose writes go through out.
type storage struct {
	backend.Storage
	out *tableFile
}

func (s storage) Writable() (backend.WritableFile, error) { return s.out, nil }

func writeFAT(ctx context.Context, to storage, f *os.File, start, size int64, files []espFile, epoch time.Time) error {
	fs, err := fat32.Create(to, size, start, sectorSize, strings.ToUpper(BootPartitionName), true)
	if err != nil {
		return err
	}
	for _, e := range files {
		if err := fs.Mkdir(path.Dir(e.path)); err != nil {
			return err
		}
		if err := addFATFile(ctx, fs, f, start, e); err != nil {
			return fmt.Errorf("%s: %w", e.path, err)
		}
	}
	return finish(fs, to.out, start, size, files, epoch)
}

// addFATFile has go-diskfs allocate a file and streams its content to where it
// lies. A Write of go-diskfs takes each cluster of 512 bytes on its own.
func addFATFile(ctx context.Context, fs *fat32.FileSystem, f *os.File, start int64, e espFile) error {
	file, err := openFAT(fs, e.path, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return err
	}
	if _, err := file.Seek(e.size-1, io.SeekStart); err != nil {
		return err
	}
	if _, err := file.Write([]byte{0}); err != nil {
		return err
	}
	ranges, err := file.GetDiskRanges()
	if err != nil {
		return err
	}
	var src io.Reader = bytes.NewReader(e.data)
	sum := sha256.New()
	if e.src != nil {
		src = io.TeeReader(&contextReader{ctx, e.src}, sum)
	}
	left := e.size
	for _, r := range ranges {
		n := min(left, int64(r.Length))
		to := bufio.NewWriterSize(io.NewOffsetWriter(f, start+int64(r.Offset)), mib)
		if _, err := io.CopyN(to, src, n); err != nil {
			return err
		}
		if err := to.Flush(); err != nil {
			return err
		}
		left -= n
	}
	if got := fmt.Sprintf("sha256:%x", sum.Sum(nil)); e.src != nil && got != e.want {
		return fmt.Errorf("%s is %s, not %s: it has changed meanwhile", e.src.Name(), got, e.want)
	}
	return nil
}

// finish sets right what go-diskfs leaves to chance or to others.
//
// It dates entries by SOURCE_DATE_EPOCH, of the environment of the whole
// process, or else by the clock: each gets the epoch. A folder in the root
// calls its parent cluster 2, where the book wants 0, and the count of free
// clusters is missing (Microsoft's FAT Specification, sections 6.5 and 5):
// checkers complain of both.
func finish(fs *fat32.FileSystem, f io.WriterAt, start, size int64, files []espFile, epoch time.Time) error {
	epoch = epoch.UTC()
	if epoch.Year() < 1980 {
		epoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	folders := map[string]bool{}
	dates := []string{"/" + strings.ToUpper(BootPartitionName)}
	for _, e := range files {
		dates = append(dates, e.path)
		for dir := path.Dir(e.path); dir != "/"; dir = path.Dir(dir) {
			folders[dir] = true
		}
	}
	used := uint32(1) // the root's
	for _, dir := range sortedKeys(folders) {
		dates = append(dates, dir, dir+"/.", dir+"/..")
	}
	for _, p := range dates {
		if err := fs.Chtimes(p, epoch, epoch, epoch); err != nil {
			return fmt.Errorf("date %s: %w", p, err)
		}
	}
	for _, p := range slices.Concat(dates[1:len(files)+1], sortedKeys(folders)) {
		file, err := openFAT(fs, p, os.O_RDONLY)
		if err != nil {
			return err
		}
		clusters, err := file.GetClusterChain()
		if err != nil {
			return fmt.Errorf("find %s: %w", p, err)
		}
		used += uint32(len(clusters))
		if path.Dir(p) == "/" && folders[p] {
			// The cluster's number lies in two halves at 20 and 26 of an entry of 32 bytes.
			dotdot := start + int64(fs.DataStart()) + int64(clusters[0]-2)*int64(fs.BytesPerCluster()) + 32
			for _, half := range []int64{20, 26} {
				if _, err := f.WriteAt([]byte{0, 0}, dotdot+half); err != nil {
					return err
				}
			}
		}
	}
	// The FSInfo sector, number 1, and its copy: the free clusters, and where
	// to look for the next one.
	total := uint32((size - int64(fs.DataStart())) / int64(fs.BytesPerCluster()))
	info := binary.LittleEndian.AppendUint32(nil, total-used)
	info = binary.LittleEndian.AppendUint32(info, used+2)
	for _, sector := range []int64{1, 7} {
		if _, err := f.WriteAt(info, start+sector*sectorSize+488); err != nil {
			return err
		}
	}
	return nil
}

// openFAT is OpenFile with go-diskfs's own type, which knows where a file lies.
func openFAT(fs *fat32.FileSystem, path string, flag int) (*fat12.File, error) {
	opened, err := fs.OpenFile(path, flag)
	if err != nil {
		return nil, err
	}
	file, ok := opened.(*fat12.File)
	if !ok {
		return nil, fmt.Errorf("go-diskfs opened %s as %T", path, opened)
	}
	return file, nil
}
