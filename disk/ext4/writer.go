// Package ext4 writes an ext4 file system in one pass, from tar streams, and reads
// ext2, ext3 and ext4 of any writer: see Writer and Reader.
//
// File data goes to its final place while the stream goes by; only inodes and
// names are kept, some 220 bytes for each file. Directories, inode tables,
// bitmaps and the superblock follow at the end, when their sizes are known. The
// result depends on what is added and in which order, and on nothing else: no
// clock, no randomness.
//
// The file system is one that any kernel since Linux 3.14 mounts for reading and
// writing: 4 KiB blocks, extents, hashed directories, 256-byte inodes, checksums
// of all metadata (metadata_csum, which needs CONFIG_CRYPTO_CRC32C; CONFIG_EXT4_FS
// selects it); no journal. On the disk:
//
//	block 0        superblock, then room for the group descriptors
//	file data      in the order of the stream; blocks of zeros are left out
//	directories
//	block bitmaps, inode bitmaps, inode tables of all groups (flex_bg)
//	free space
//
// Bitmaps and inode tables of groups that hold nothing are not written, and say so
// (BLOCK_UNINIT, INODE_UNINIT): an empty file system of 1 TiB is some MiB on the
// disk, and neither kernel nor e2fsck reads what is not there.
//
// Groups 1 and 3^n, 5^n, 7^n begin with copies of superblock and descriptors,
// wherever they lie (sparse_super).
//
// The format is described in the kernel's Documentation/filesystems/ext4; each
// file here names the page it follows.
package ext4

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
)

// Options of a file system. The zero value works.
type Options struct {
	UUID     [16]byte  // all zeros stand for one that is always the same
	Label    string    // at most 16 bytes
	HashSeed [16]byte  // of directory hashes; zeros stand for ext4's own
	Epoch    time.Time // of the file system, and of folders that no entry describes; zero is 1970-01-01
	// MaxSize is the largest the file system may become, in bytes; 0 is 1 TiB.
	// While writing, room for the group descriptors of so much is kept free at the
	// head of every group that gets a copy of them: 256 KiB for 1 TiB.
	MaxSize int64
}

const (
	defaultMaxSize  = 1 << 40
	lostFoundBlocks = 4 // as mke2fs gives it, so that e2fsck need not allocate

	// maxPath is PATH_MAX of Linux, which no longer path can be opened with, twice:
	// a tree of AddTar may become the root of those who open paths in it.
	// maxEntries and maxKept bound the memory for names as maxInodes does for files.
	maxPath    = 2 * 4096
	maxEntries = 1 << 24
	maxKept    = 512 << 20
)

// defaultUUID is for file systems that got none: e2fsck wants one.
var defaultUUID = [16]byte{'l', 'a', 'b', 'e', 'x', 't', 0x44, 0, 0x80, 0, 0, 0, 0, 0, 0, 1}

// Writer builds one file system. After an error it is of no more use.
type Writer struct {
	opt       Options
	out       output
	seed      uint32 // of the checksums
	inodes    inodeTable
	root      *directory
	lostFound uint32
	links     []link
	xattrs    xattrBlocks

	// Reused from file to file.
	extents  extentTree
	dirBlock direntBlock

	entries  int    // added so far
	kept     int    // bytes of their names that stay in memory
	lastPath string // of the directory that the last entry went to
	lastDir  *directory
	err      error
}

// NewWriter begins a file system that starts at offset base of w. What w holds
// there must read as zeros: a new file, or a hole punched. w may be shorter than
// the file system; Close tells how long it has to be.
func NewWriter(w io.WriterAt, base int64, o Options) (*Writer, error) {
	if len(o.Label) > 16 {
		return nil, fmt.Errorf("make ext4: label %q has more than 16 bytes", o.Label)
	}
	if o.UUID == [16]byte{} {
		o.UUID = defaultUUID
	}
	if o.Epoch.IsZero() {
		o.Epoch = time.Unix(0, 0)
	}
	if o.MaxSize == 0 {
		o.MaxSize = defaultMaxSize
	}
	if o.MaxSize < 1<<20 || o.MaxSize > maxBlocks*blockSize {
		return nil, fmt.Errorf("make ext4: size of at most %d bytes is not between 1 MiB and 16 TiB", o.MaxSize)
	}
	limit := uint32(o.MaxSize / blockSize)
	reserved := 1 + divUp(divUp(limit, groupBlocks), blockDescs)
	e := &Writer{opt: o, out: output{w: w, base: base, limit: limit, reserved: reserved, buf: make([]byte, 0, bufferSize)}}
	e.seed = fsSeed(o.UUID)
	e.xattrs.seed = e.seed
	e.extents.out = &e.out
	e.inodes.pieces = [][]inode{make([]inode, inodePiece)}
	e.inodes.last = firstInode - 1
	e.root = e.initDirectory(rootInode, rootInode)
	lostFound, err := e.makeDirectory(e.root, "lost+found")
	if err != nil {
		return nil, err
	}
	e.lostFound = lostFound.ino
	e.inodes.get(e.lostFound).mode = modeDir | 0o700
	return e, nil
}

func divUp(n, by uint32) uint32 { return n/by + min(1, n%by) }

// initDirectory makes an inode an empty directory, root's and from Epoch.
func (w *Writer) initDirectory(ino, parent uint32) *directory {
	n := w.inodes.get(ino)
	t := newTimestamp(w.opt.Epoch)
	*n = inode{mode: modeDir | 0o755, links: 2, atime: t, ctime: t, mtime: t}
	n.dir = &directory{ino: ino, parent: parent, entries: make(map[string]uint32)}
	return n.dir
}

// AddTar adds every entry of a tar stream below the directory prefix. It reads
// the stream to its end. Hard links are between entries of the stream.
func (w *Writer) AddTar(prefix string, r io.Reader) error {
	if w.err == nil {
		w.err = w.addTar(prefix, r)
	}
	return w.err
}

func (w *Writer) addTar(prefix string, r io.Reader) error {
	buffered := bufio.NewReaderSize(r, 64<<10)
	stream := tar.NewReader(buffered)
	for {
		h, err := stream.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read tar stream for %s: %w", prefix, err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if h.Name, err = join(prefix, h.Name); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeLink {
			if h.Linkname, err = join(prefix, h.Linkname); err != nil {
				return err
			}
		}
		if err := w.Add(h, stream); err != nil {
			return err
		}
	}
	// What checks the stream as it goes by reports at its end.
	if _, err := io.Copy(io.Discard, buffered); err != nil {
		return fmt.Errorf("read tar stream for %s: %w", prefix, err)
	}
	return nil
}

// join puts a path of a tar stream below prefix, and refuses one that would leave
// it.
func join(prefix, name string) (string, error) {
	if name == ".." || strings.HasPrefix(name, "../") || strings.HasSuffix(name, "/..") || strings.Contains(name, "/../") {
		return "", fmt.Errorf("add %q to ext4: path leads out of its tree", brief(name))
	}
	return path.Join(prefix, name), nil
}

// Add adds one file. Of the header counts what tar holds for a kind of file:
// Name and Linkname of a hard link are paths from the root of the file system;
// ModTime, AccessTime and ChangeTime (both ModTime when zero) to the nanosecond;
// extended attributes from PAXRecords (SCHILY.xattr, LIBARCHIVE.xattr,
// SCHILY.acl). r gives the Size bytes of a regular file. Tar has no type for
// sockets: an empty regular file with the type bits of a socket in Mode is one.
//
// Directories above the entry that have not come are made, root's, with mode
// 0755; an entry that comes later changes them. An entry takes the place of an
// earlier one with its name, except that a directory stays a directory. The
// target of a hard link may come later.
func (w *Writer) Add(h *tar.Header, r io.Reader) error {
	if w.err != nil {
		return w.err
	}
	if err := w.add(h, r); err != nil {
		w.err = fmt.Errorf("add %q to ext4: %w", brief(h.Name), err)
	}
	return w.err
}

// brief is a path for an error message.
func brief(p string) string {
	if len(p) > 300 {
		return p[:300] + "…"
	}
	return p
}

func (w *Writer) add(h *tar.Header, r io.Reader) error {
	if w.entries++; w.entries > maxEntries {
		return fmt.Errorf("more than %d entries", maxEntries)
	}
	if len(h.Name) > maxPath || len(h.Linkname) > maxPath {
		return fmt.Errorf("path of more than %d bytes", maxPath)
	}
	n := &inode{links: 1}
	if err := n.setHeader(h); err != nil {
		return err
	}
	list, err := headerXattrs(h, n.mode)
	if err != nil {
		return err
	}
	if clean(h.Name) == "" {
		if n.mode&modeType != modeDir {
			return errors.New("the root can only be a directory")
		}
		return w.updateDirectory(rootInode, n, list)
	}
	dir, name, err := w.parent(clean(h.Name))
	if err != nil {
		return err
	}
	switch {
	case h.Typeflag == tar.TypeLink:
		return w.addLink(dir, name, h)
	case n.mode&modeType == modeDir:
		return w.addDirectory(dir, name, n, list)
	}
	if err := w.clearPlace(dir, name); err != nil {
		return err
	}
	ino, err := w.inodes.add()
	if err != nil {
		return err
	}
	if err := w.setContent(n, ino, h, r); err != nil {
		return err
	}
	if err := w.setXattrs(n, list); err != nil {
		return err
	}
	*w.inodes.get(ino) = *n
	dir.entries[name] = ino
	return nil
}

// parent finds the directory that a path lies in, making what is missing.
func (w *Writer) parent(p string) (*directory, string, error) {
	dirPath, name := "", p
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		dirPath, name = p[:i], p[i+1:]
	}
	if w.lastDir == nil || w.lastPath != dirPath {
		dir := w.root
		for element := range strings.SplitSeq(dirPath, "/") {
			if element == "" {
				continue
			}
			ino, ok := dir.entries[element]
			if !ok {
				element, err := w.keepName(element)
				if err != nil {
					return nil, "", err
				}
				if dir, err = w.makeDirectory(dir, element); err != nil {
					return nil, "", err
				}
				continue
			}
			if ino&pendingLink != 0 || w.inodes.get(ino).dir == nil {
				return nil, "", fmt.Errorf("%q above it is not a directory", element)
			}
			dir = w.inodes.get(ino).dir
		}
		w.lastPath, w.lastDir = dirPath, dir
	}
	name, err := w.keepName(name)
	return w.lastDir, name, err
}

// Has tells whether anything has been added at a path so far.
func (w *Writer) Has(p string) bool {
	_, ok := w.lookup(clean(p))
	return ok
}

// clean takes a path to its elements, with single slashes between them.
func clean(p string) string { return strings.TrimPrefix(path.Clean("/"+p), "/") }

// keepName gives a name that may be in a directory.
func (w *Writer) keepName(name string) (string, error) {
	switch {
	case len(name) > maxName:
		return "", fmt.Errorf("name %.32q… has %d bytes, at most %d are allowed", name, len(name), maxName)
	case strings.ContainsRune(name, 0):
		return "", fmt.Errorf("name %q holds a zero byte", name)
	}
	return w.keep(name)
}

// keep gives a string that may stay in memory until the end: one of its own, lest
// a name hold on to the path that it was cut from.
func (w *Writer) keep(s string) (string, error) {
	if w.kept += len(s); w.kept > maxKept {
		return "", fmt.Errorf("names are longer than %d bytes, all together", maxKept)
	}
	return strings.Clone(s), nil
}

func (w *Writer) makeDirectory(dir *directory, name string) (*directory, error) {
	ino, err := w.inodes.add()
	if err != nil {
		return nil, err
	}
	dir.entries[name] = ino
	w.inodes.get(dir.ino).links++
	return w.initDirectory(ino, dir.ino), nil
}

func (w *Writer) addDirectory(dir *directory, name string, n *inode, list []xattr) error {
	ino, ok := dir.entries[name]
	if !ok || ino&pendingLink != 0 || w.inodes.get(ino).dir == nil {
		if err := w.clearPlace(dir, name); err != nil {
			return err
		}
		made, err := w.makeDirectory(dir, name)
		if err != nil {
			return err
		}
		ino = made.ino
	}
	return w.updateDirectory(ino, n, list)
}

// updateDirectory gives a directory owner, mode, times and attributes.
func (w *Writer) updateDirectory(ino uint32, from *inode, list []xattr) error {
	n := w.inodes.get(ino)
	n.mode, n.uid, n.gid = from.mode, from.uid, from.gid
	n.atime, n.ctime, n.mtime = from.atime, from.ctime, from.mtime
	if n.xattrBlock != 0 {
		w.xattrs.release(&w.out, n.xattrBlock)
	}
	return w.setXattrs(n, list)
}

// clearPlace takes away what has a name, if anything has.
func (w *Writer) clearPlace(dir *directory, name string) error {
	ino, ok := dir.entries[name]
	if !ok {
		return nil
	}
	if ino&pendingLink == 0 {
		n := w.inodes.get(ino)
		if n.dir != nil {
			return errors.New("a directory of that name is already there")
		}
		if n.links--; n.links == 0 {
			if n.span.first < n.span.end {
				w.out.unused = append(w.out.unused, n.span)
			}
			if n.xattrBlock != 0 {
				w.xattrs.release(&w.out, n.xattrBlock)
			}
			*n = inode{}
		}
	}
	delete(dir.entries, name)
	return nil
}
