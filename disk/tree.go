package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// A Tree is the file system in one partition of a disk image.
type Tree struct {
	Partition Partition

	image string
	volume
}

// A volume reads one kind of file system. Names in it are trusted to be
// names: not empty, not "." or "..", without '/' and zero bytes.
type volume interface {
	usage() Usage
	root() (Stat, error)
	names(dir *Stat) ([]entry, error) // in any order
	stat(entry) (Stat, error)         // all but its Path
	content(*Stat) (*Content, error)
	xattrs(*Stat) (map[string]string, error)
}

// An entry is a name in a directory.
type entry struct {
	name  string
	inode uint32
	file  *Stat // or what is known of it already
}

// Usage says what a file system is and how much of it is in use.
type Usage struct {
	Label      string `json:"label"`
	UUID       string `json:"uuid,omitempty"`
	BlockSize  int64  `json:"blockSize"`
	Size       int64  `json:"size"` // in bytes, as is
	Free       int64  `json:"free"`
	Inodes     int64  `json:"inodes,omitempty"`
	FreeInodes int64  `json:"freeInodes,omitempty"`
}

// Stat is one path of a Tree, with what lstat(2) and readlink(2) tell of it.
type Stat struct {
	Path         string // from the root of the tree, which is "/"; its bytes are the disk's
	Mode         uint32 // st_mode: type bits and permissions, setuid and all
	UID, GID     uint32
	Size         int64 // of regular files and symlinks, else 0
	Atime, Mtime time.Time
	Ctime        time.Time
	Links        uint32
	Inode        uint32 // hard links have the same; 0 on FAT, which has none
	Major, Minor uint32 // of a device
	Target       string // of a symlink

	node any // the volume's own
}

// The type bits of a Stat's Mode, as in inode(7).
const (
	TypeMask    = 0o170000
	TypeSocket  = 0o140000
	TypeSymlink = 0o120000
	TypeRegular = 0o100000
	TypeBlock   = 0o060000
	TypeDir     = 0o040000
	TypeChar    = 0o020000
	TypeFIFO    = 0o010000
)

// Type is the kind of file: one of the constants above.
func (f *Stat) Type() uint32 { return f.Mode & TypeMask }

// Kind is the kind of file in words.
func (f *Stat) Kind() string {
	kinds := map[uint32]string{
		TypeSocket: "socket", TypeSymlink: "symlink", TypeRegular: "file", TypeBlock: "block device",
		TypeDir: "directory", TypeChar: "character device", TypeFIFO: "fifo",
	}
	if kind := kinds[f.Type()]; kind != "" {
		return kind
	}
	return fmt.Sprintf("file of unknown type %o", f.Type())
}

// Content is the bytes of a regular file. Each goroutine needs its own.
type Content struct {
	io.ReaderAt
	Size int64
	// hole tells whether the disk has nothing of what lies from off on, up to end.
	hole func(off int64) (end int64, hole bool, err error)
}

// Usage says what the file system is.
func (t *Tree) Usage() Usage { return t.usage() }

func (t *Tree) wrap(verb, p string, err error) error {
	return fmt.Errorf("%s %q in %s: %w", verb, p, t.image, err)
}

// maxPath bounds the path of a directory in a directory in a directory. Linux
// itself knows no bound, but no tool gets even that far.
const maxPath = 256 << 10

// maxSymlinks is how many symlinks lead to one path, at most (MAXSYMLINKS).
const maxSymlinks = 40

// Lookup finds a path, like lstat(2), or with follow like stat(2). Symlinks are
// followed within the container that the path is in, and no further; ".." does
// not lead out of it. What is not there is fs.ErrNotExist.
func (t *Tree) Lookup(p string, follow bool) (Stat, error) {
	f, err := t.find(p, follow || strings.HasSuffix(p, "/"))
	if err != nil {
		return f, t.wrap("find", p, err)
	}
	return f, nil
}

func (t *Tree) find(p string, follow bool) (Stat, error) {
	if len(p) > maxPath {
		return Stat{}, errors.New("the path is too long")
	}
	root, err := t.root()
	if err != nil {
		return Stat{}, err
	}
	left, links := split(p), 0
	// To the container's root no symlink leads: lab makes it a directory.
	for range containerNames(left) {
		if root, err = t.step(&root, left[0]); err != nil {
			return root, err
		}
		left = left[1:]
	}
	dirs := []Stat{root} // down to where we are
	for len(left) > 0 {
		name := left[0]
		left = left[1:]
		if name == ".." {
			dirs = dirs[:max(1, len(dirs)-1)]
			continue
		}
		f, err := t.step(&dirs[len(dirs)-1], name)
		if err != nil {
			return f, err
		}
		if f.Type() != TypeSymlink || len(left) == 0 && !follow {
			dirs = append(dirs, f)
			continue
		}
		if links++; links > maxSymlinks {
			return f, errors.New("too many levels of symlinks")
		}
		if path.IsAbs(f.Target) {
			dirs = dirs[:1]
		}
		left = append(split(f.Target), left...)
	}
	return dirs[len(dirs)-1], nil
}

// split gives the names in a path, without empty ones and ".".
func split(p string) []string {
	return slices.DeleteFunc(strings.Split(p, "/"), func(name string) bool { return name == "" || name == "." })
}

// step finds a name in a directory.
func (t *Tree) step(dir *Stat, name string) (Stat, error) {
	if dir.Type() != TypeDir {
		return Stat{}, fmt.Errorf("%q is a %s, not a directory: %w", dir.Path, dir.Kind(), fs.ErrNotExist)
	}
	list, err := t.names(dir)
	if err != nil {
		return Stat{}, err
	}
	i := slices.IndexFunc(list, func(e entry) bool { return e.name == name })
	if i < 0 {
		return Stat{}, fs.ErrNotExist
	}
	return t.below(dir, list[i])
}

// below is what an entry of a directory stands for.
func (t *Tree) below(dir *Stat, e entry) (Stat, error) {
	f, err := t.stat(e)
	f.Path = strings.TrimSuffix(dir.Path, "/") + "/" + e.name
	return f, err
}

// list gives the names in a directory, in the order of their bytes.
func (t *Tree) list(dir *Stat) ([]entry, error) {
	if dir.Type() != TypeDir {
		return nil, fmt.Errorf("it is a %s, not a directory", dir.Kind())
	}
	list, err := t.names(dir)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(list); i++ {
		if list[i].name == list[i-1].name {
			return nil, fmt.Errorf("the name %q is there twice", list[i].name)
		}
	}
	return list, nil
}

// ReadDir gives what is in a directory, in the order of the names' bytes.
func (t *Tree) ReadDir(dir *Stat) ([]Stat, error) {
	list, err := t.list(dir)
	if err != nil {
		return nil, t.wrap("list", dir.Path, err)
	}
	files := make([]Stat, len(list))
	for i, e := range list {
		if files[i], err = t.below(dir, e); err != nil {
			return nil, t.wrap("read", files[i].Path, err)
		}
	}
	return files, nil
}

// Content opens a regular file.
func (t *Tree) Content(f *Stat) (*Content, error) {
	if f.Type() != TypeRegular {
		return nil, t.wrap("read", f.Path, fmt.Errorf("it is a %s, not a regular file", f.Kind()))
	}
	c, err := t.content(f)
	if err != nil {
		return nil, t.wrap("read", f.Path, err)
	}
	return c, nil
}

// Xattrs gives the extended attributes of a file by their full names, nil when
// there are none.
func (t *Tree) Xattrs(f *Stat) (map[string]string, error) {
	all, err := t.xattrs(f)
	if err != nil {
		return nil, t.wrap("read", f.Path, err)
	}
	return all, nil
}

// WriteContent writes the bytes of a regular file to w, in memory that does not
// grow with the file.
func (t *Tree) WriteContent(ctx context.Context, w io.Writer, f *Stat) error {
	c, err := t.Content(f)
	if err != nil {
		return err
	}
	b := make([]byte, min(chunk, c.Size))
	for at := int64(0); at < c.Size; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		part := b[:min(int64(len(b)), c.Size-at)]
		if err := c.read(part, at); err != nil {
			return t.wrap("read", f.Path, err)
		}
		if _, err := w.Write(part); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		at += int64(len(part))
	}
	return nil
}

// chunk is how much of a file is read at once.
const chunk = 256 << 10

// read reads bytes that have to be there.
func (c *Content) read(b []byte, at int64) error {
	if n, err := c.ReadAt(b, at); n < len(b) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

// Walk calls do for start and everything below it: a directory before what is
// in it, names in the order of their bytes. It ends with the first error.
func (t *Tree) Walk(ctx context.Context, start *Stat, do func(*Stat) error) error {
	for w := t.walker(start); ; {
		f, err := w.next()
		if f == nil || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := do(f); err != nil {
			return err
		}
	}
}

// A walker gives a walk's files one by one.
type walker struct {
	t     *Tree
	start *Stat             // until it is given
	todo  []level           // the directories down to where we are
	enter *Stat             // a directory that was given and not yet looked into
	seen  map[uint32]string // directories, by inode
}

// A level is a directory and the names in it that are left.
type level struct {
	dir  *Stat
	left []entry
}

func (t *Tree) walker(start *Stat) *walker {
	return &walker{t: t, start: start, seen: make(map[uint32]string)}
}

// next gives nil at the end.
func (w *walker) next() (*Stat, error) {
	if f := w.start; f != nil {
		w.start = nil
		return w.give(f), nil
	}
	if err := w.descend(); err != nil {
		return nil, err
	}
	for len(w.todo) > 0 {
		last := &w.todo[len(w.todo)-1]
		if len(last.left) == 0 {
			w.todo = w.todo[:len(w.todo)-1]
			continue
		}
		f, err := w.t.below(last.dir, last.left[0])
		if err != nil {
			return nil, w.t.wrap("read", f.Path, err)
		}
		last.left = last.left[1:]
		return w.give(&f), nil
	}
	return nil, nil
}

func (w *walker) give(f *Stat) *Stat {
	if f.Type() == TypeDir {
		w.enter = f
	}
	return f
}

// descend goes into the directory that was given last. One that is found twice
// would be a loop, or grow without end.
func (w *walker) descend() error {
	dir := w.enter
	if dir == nil {
		return nil
	}
	w.enter = nil
	if at, ok := w.seen[dir.Inode]; ok && dir.Inode != 0 {
		return w.t.wrap("list", dir.Path, fmt.Errorf("the same directory is at %q too", at))
	}
	w.seen[dir.Inode] = dir.Path
	if len(dir.Path) > maxPath {
		return w.t.wrap("list", dir.Path[:256]+"…", errors.New("the path is too long"))
	}
	list, err := w.t.list(dir)
	if err != nil {
		return w.t.wrap("list", dir.Path, err)
	}
	w.todo = append(w.todo, level{dir, list})
	return nil
}
