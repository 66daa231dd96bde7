package disk

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"strings"
)

// File is one entry of an initramfs.
type File struct {
	// Path is where it appears in the guest: absolute or relative to the root.
	Path string
	// Mode holds the permissions and, by fs.ModeDir, fs.ModeSymlink,
	// fs.ModeNamedPipe or fs.ModeSocket, the kind of file. Zero permissions stay
	// zero.
	Mode fs.FileMode
	// Data is the content of a regular file.
	Data []byte
	// Source is the path on the host of a regular file's content, used when Data
	// is nil. With both empty the file is empty.
	Source string
	// Target is what a symbolic link points to.
	Target string
}

// The type bits of st_mode (inode(7)).
const (
	modeType    = 0o170000
	modeSocket  = 0o140000
	modeSymlink = 0o120000
	modeRegular = 0o100000
	modeDir     = 0o040000
	modeChar    = 0o020000
	modeFIFO    = 0o010000
)

// WriteInitramfs writes files as a newc cpio archive, uncompressed, as the
// kernel unpacks it (Documentation/driver-api/early-userspace/buffer-format.rst).
// Entries are sorted by path, owned by root, dated 1970-01-01 and numbered from 1,
// so that the same files give the same bytes. Folders that files need and that
// are not among them are made with mode 0755. /dev/console (5:1) is always
// there: without it PID 1 starts with no standard streams.
//
// A path that occurs twice, leaves the root or has a file for a folder is an
// error, as are devices and files of 4 GiB and more, which newc cannot hold.
func WriteInitramfs(w io.Writer, files []File) error {
	entries, err := initramfsEntries(files)
	if err != nil {
		return err
	}
	out := &cpioWriter{w: bufio.NewWriterSize(w, 1<<20)}
	for _, e := range entries {
		if err := out.add(e); err != nil {
			return fmt.Errorf("write initramfs entry /%s: %w", e.Path, err)
		}
	}
	if err := out.close(); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	return nil
}

// initramfsEntries cleans and checks the paths, adds what is always there and
// the missing parents, and sorts: a parent is a prefix of its children, so it
// comes first.
func initramfsEntries(files []File) ([]File, error) {
	byPath := make(map[string]File)
	for _, f := range files {
		name := strings.TrimPrefix(path.Clean("/"+f.Path), "/")
		switch {
		case name == "" || slices.Contains(strings.Split(f.Path, "/"), "..") || strings.ContainsRune(name, 0):
			return nil, fmt.Errorf("write initramfs: %q is not a path for a file", f.Path)
		case name == "dev/console":
			return nil, fmt.Errorf("write initramfs: /dev/console is always made, it cannot be given")
		case name == "TRAILER!!!":
			return nil, fmt.Errorf("write initramfs: %q marks the end of a cpio archive, it cannot be a file", f.Path)
		}
		if _, twice := byPath[name]; twice {
			return nil, fmt.Errorf("write initramfs: /%s is given twice", name)
		}
		f.Path = name
		byPath[name] = f
	}
	byPath["dev/console"] = File{Path: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600}

	for _, name := range sortedKeys(byPath) {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			parent, ok := byPath[dir]
			if !ok {
				byPath[dir] = File{Path: dir, Mode: fs.ModeDir | 0o755}
			} else if !parent.Mode.IsDir() {
				return nil, fmt.Errorf("write initramfs: /%s is in /%s, which is not a directory", name, dir)
			}
		}
	}
	entries := make([]File, 0, len(byPath))
	for _, name := range sortedKeys(byPath) {
		entries = append(entries, byPath[name])
	}
	return entries, nil
}

func sortedKeys[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// cpioWriter writes newc entries.
type cpioWriter struct {
	w   *bufio.Writer
	ino uint32
	n   int64
}

func (c *cpioWriter) add(f File) error {
	mode := uint32(f.Mode.Perm())
	for _, b := range []struct {
		bit fs.FileMode
		st  uint32
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if f.Mode&b.bit != 0 {
			mode |= b.st
		}
	}
	switch f.Mode.Type() {
	case 0:
		return c.addRegular(f, mode|modeRegular)
	case fs.ModeDir:
		return c.entry(f.Path, mode|modeDir, 0, 0, 0, nil)
	case fs.ModeSymlink:
		if f.Target == "" {
			return fmt.Errorf("symbolic link has no target")
		}
		// The kernel gives every symbolic link these permissions.
		return c.entry(f.Path, modeSymlink|0o777, 0, 0, int64(len(f.Target)), strings.NewReader(f.Target))
	case fs.ModeNamedPipe:
		return c.entry(f.Path, mode|modeFIFO, 0, 0, 0, nil)
	case fs.ModeSocket:
		return c.entry(f.Path, mode|modeSocket, 0, 0, 0, nil)
	case fs.ModeDevice | fs.ModeCharDevice: // only ever /dev/console
		return c.entry(f.Path, mode|modeChar, 5, 1, 0, nil)
	}
	return fmt.Errorf("file type %s is not supported", f.Mode.Type())
}

func (c *cpioWriter) addRegular(f File, mode uint32) error {
	if f.Data != nil || f.Source == "" {
		return c.entry(f.Path, mode, 0, 0, int64(len(f.Data)), bytes.NewReader(f.Data))
	}
	src, err := os.Open(f.Source)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("source %s is not a regular file", f.Source)
	}
	return c.entry(f.Path, mode, 0, 0, info.Size(), src)
}

// entry writes one header, name and content, each padded to four bytes. All
// numbers are eight hexadecimal digits.
func (c *cpioWriter) entry(name string, mode, rmajor, rminor uint32, size int64, data io.Reader) error {
	if size > math.MaxUint32 {
		return fmt.Errorf("size of %d bytes does not fit a cpio archive", size)
	}
	c.ino++
	links := 1
	if mode&modeType == modeDir {
		links = 2
	}
	c.printf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.ino, mode, 0, 0, links, 0, size, 0, 0, rmajor, rminor, len(name)+1, 0)
	c.printf("%s\x00", name)
	c.pad(4)
	if data != nil {
		n, err := io.Copy(c.w, io.LimitReader(data, size))
		c.n += n
		if err != nil {
			return err
		}
		if n != size {
			return fmt.Errorf("read %d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)
		}
	}
	c.pad(4)
	return nil
}

// close writes the trailer and pads to the 512 bytes that cpio(1) uses.
func (c *cpioWriter) close() error {
	c.ino = 0
	c.printf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, len("TRAILER!!!")+1, 0, "TRAILER!!!")
	c.pad(512)
	return c.w.Flush() // the first error of any write
}

func (c *cpioWriter) printf(format string, args ...any) {
	n, _ := fmt.Fprintf(c.w, format, args...) // bufio keeps the error for Flush
	c.n += int64(n)
}

func (c *cpioWriter) pad(align int64) {
	for c.n%align != 0 {
		_ = c.w.WriteByte(0) // close has the error: a bufio.Writer keeps its first
		c.n++
	}
}
