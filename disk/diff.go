package disk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// A Side is one of two to compare: a whole image, or one container of it.
type Side struct {
	Image     *Reader
	Container string // "" for the whole image
}

// DiffOptions says what counts as a difference.
type DiffOptions struct {
	IgnoreTimes bool
}

// A Change is a path, or a partition, that is not the same on both sides.
type Change struct {
	Partition   string // where it is; "" for the file system with the containers
	Path        string // from the root of the file system, or of the container's folder; "" for the partition itself
	Was, Is     *Stat  // of a path: nil on the side that lacks it
	Kind        string // added, removed or changed
	Differences []Difference
}

// Kinds of a Change.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
)

// A Difference is what about a path differs, in words, with both values as they
// are shown to people: what would not print is quoted, with escapes.
type Difference struct {
	What string `json:"what"`
	Was  string `json:"was"`
	Is   string `json:"is"`
}

// DiffCount is what Diff saw.
type DiffCount struct {
	Paths   int `json:"paths"` // on either side
	Added   int `json:"added"`
	Removed int `json:"removed"`
	Changed int `json:"changed"`
}

// Equal tells whether there was no change.
func (n DiffCount) Equal() bool { return n.Added+n.Removed+n.Changed == 0 }

// Diff calls do for each change from a to b: first of the partitions, then of the
// paths in each, in the order of Walk. Contents are compared byte by byte where
// their sizes agree. Times of access and of inode changes, how many links a file
// has and how large directories are do not count, but which paths are hard links
// of each other does. It takes little memory, however large the images are.
func Diff(ctx context.Context, a, b Side, o DiffOptions, do func(*Change) error) (DiffCount, error) {
	d := &differ{o: o, do: do}
	if (a.Container == "") != (b.Container == "") {
		return d.n, errors.New("compare images: one side is a container and the other is a whole image")
	}
	if a.Container != "" {
		return d.n, d.containers(ctx, a, b)
	}
	return d.n, d.images(ctx, a.Image, b.Image)
}

type differ struct {
	o  DiffOptions
	do func(*Change) error
	n  DiffCount

	partition string
	was, is   diffSide
	compared  map[[2]uint32]int64 // of inodes with several links, where their contents differ
	bufs      [2][]byte
}

type diffSide struct {
	t     *Tree
	w     *walker
	base  string            // what is cut off the paths
	first map[uint32]string // of inodes with several links, the first path
	next  *Stat
	path  string // of next
}

func (d *differ) report(c Change) error {
	switch c.Kind {
	case Added:
		d.n.Added++
	case Removed:
		d.n.Removed++
	case Changed:
		d.n.Changed++
	}
	c.Partition = d.partition
	for i := range c.Differences {
		v := &c.Differences[i]
		v.What, v.Was, v.Is = printable(v.What), printable(v.Was), printable(v.Is)
	}
	return d.do(&c)
}

func (d *differ) containers(ctx context.Context, a, b Side) error {
	t, err := a.Image.Tree("")
	if err != nil {
		return err
	}
	u, err := b.Image.Tree("")
	if err != nil {
		return err
	}
	from, to := path.Join("/", containersDir, a.Container), path.Join("/", containersDir, b.Container)
	return d.trees(ctx, t, from, u, to)
}

// images compares partition by partition: those of the same name, or number
// where they have none.
func (d *differ) images(ctx context.Context, a, b *Reader) error {
	key := func(p Partition) string {
		if p.Name != "" {
			return p.Name
		}
		return fmt.Sprint(p.Number)
	}
	if a.Table != b.Table || a.GUID != b.GUID {
		list := changes(Difference{"partition table", a.Table, b.Table}, Difference{"disk GUID", a.GUID, b.GUID})
		if err := d.report(Change{Kind: Changed, Differences: list}); err != nil {
			return err
		}
	}
	type pair struct{ a, b *Partition }
	pairs := make(map[string]*pair)
	var order []string
	for side, r := range []*Reader{a, b} {
		for i := range r.Partitions {
			p := &r.Partitions[i]
			k := key(*p)
			if pairs[k] == nil {
				pairs[k] = new(pair)
				order = append(order, k)
			}
			if side == 0 {
				pairs[k].a = p
			} else {
				pairs[k].b = p
			}
		}
	}
	for _, k := range order {
		if err := d.partitions(ctx, a, pairs[k].a, b, pairs[k].b); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) partitions(ctx context.Context, a *Reader, p *Partition, b *Reader, q *Partition) error {
	switch {
	case q == nil:
		d.partition = p.String()
		return d.report(Change{Kind: Removed})
	case p == nil:
		d.partition = q.String()
		return d.report(Change{Kind: Added})
	}
	d.partition = p.String()
	list := changes(
		Difference{"number", fmt.Sprint(p.Number), fmt.Sprint(q.Number)},
		Difference{"type", p.Type, q.Type},
		Difference{"GUID", p.GUID, q.GUID},
		Difference{"start", fmt.Sprint(p.Start), fmt.Sprint(q.Start)},
		Difference{"size", fmt.Sprint(p.Size), fmt.Sprint(q.Size)},
		Difference{"file system", p.FileSystem, q.FileSystem},
	)
	if p.FileSystem == "" && q.FileSystem == "" && p.Size == q.Size { // of unknown content: byte by byte
		at, err := d.firstDifference(ctx, a.raw(p), b.raw(q))
		if err != nil {
			return fmt.Errorf("compare %s of %s and %s: %w", p, a.Path, b.Path, err)
		}
		if at >= 0 {
			list = append(list, contentDifference(at))
		}
	}
	var t, u *Tree
	if p.FileSystem != "" && p.FileSystem == q.FileSystem {
		var err error
		if t, err = a.tree(*p); err != nil {
			return err
		}
		if u, err = b.tree(*q); err != nil {
			return err
		}
		v, w := t.Usage(), u.Usage()
		list = append(list, changes(Difference{"label", v.Label, w.Label}, Difference{"UUID", v.UUID, w.UUID}, Difference{"block size", fmt.Sprint(v.BlockSize), fmt.Sprint(w.BlockSize)})...)
	}
	if len(list) > 0 {
		if err := d.report(Change{Kind: Changed, Differences: list}); err != nil {
			return err
		}
	}
	if t == nil {
		return nil
	}
	if p.Name == PartitionName || p.Number == 0 {
		d.partition = ""
	}
	return d.trees(ctx, t, "/", u, "/")
}

// trees compares two trees below a path each, by two walks side by side.
func (d *differ) trees(ctx context.Context, t *Tree, from string, u *Tree, to string) error {
	d.compared = make(map[[2]uint32]int64)
	for _, s := range []struct {
		side *diffSide
		t    *Tree
		base string
	}{{&d.was, t, from}, {&d.is, u, to}} {
		start, err := s.t.Lookup(s.base, false)
		if err != nil {
			return err
		}
		*s.side = diffSide{t: s.t, w: s.t.walker(&start), base: strings.TrimSuffix(s.base, "/"), first: make(map[uint32]string)}
		if err := s.side.advance(); err != nil {
			return err
		}
	}
	for d.was.next != nil || d.is.next != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := d.step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// step takes the path that comes first.
func (d *differ) step(ctx context.Context) error {
	d.n.Paths++
	a, b := d.was.next, d.is.next
	order := 0
	switch {
	case a == nil:
		order = 1
	case b == nil:
		order = -1
	default:
		order = inWalk(d.was.path, d.is.path)
	}
	switch {
	case order < 0:
		err := d.report(Change{Path: d.was.path, Was: a, Kind: Removed})
		return errors.Join(err, d.was.advance())
	case order > 0:
		err := d.report(Change{Path: d.is.path, Is: b, Kind: Added})
		return errors.Join(err, d.is.advance())
	}
	list, err := d.compare(ctx, a, b)
	if err != nil {
		return err
	}
	if len(list) > 0 {
		if err := d.report(Change{Path: d.was.path, Was: a, Is: b, Kind: Changed, Differences: list}); err != nil {
			return err
		}
	}
	return errors.Join(d.was.advance(), d.is.advance())
}

func (s *diffSide) advance() error {
	next, err := s.w.next()
	if err != nil {
		return err
	}
	s.next = next
	if next == nil {
		return nil
	}
	s.path = strings.TrimPrefix(next.Path, s.base)
	if s.path == "" {
		s.path = "/"
	}
	if _, ok := s.first[next.Inode]; !ok && next.Links > 1 && next.Type() != TypeDir {
		s.first[next.Inode] = s.path
	}
	return nil
}

// link is the first path of what s.next is a hard link of, if that is another.
func (s *diffSide) link() string {
	if first, ok := s.first[s.next.Inode]; ok && s.next.Links > 1 && first != s.path {
		return first
	}
	return ""
}

// inWalk compares two paths by their place in a walk: that is by their names, one
// by one, and no name sorts below the end of one.
func inWalk(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	rank := func(s string) int {
		switch {
		case n == len(s):
			return -1
		case s[n] == '/':
			return 0
		}
		return int(s[n])
	}
	return rank(a) - rank(b)
}

// compare says what differs between two of the same path.
func (d *differ) compare(ctx context.Context, a, b *Stat) ([]Difference, error) {
	if a.Type() != b.Type() {
		return []Difference{{"type", a.Kind(), b.Kind()}}, nil
	}
	list := changes(
		Difference{"mode", fmt.Sprintf("%04o", a.Mode&0o7777), fmt.Sprintf("%04o", b.Mode&0o7777)},
		Difference{"owner", fmt.Sprintf("%d:%d", a.UID, a.GID), fmt.Sprintf("%d:%d", b.UID, b.GID)},
		Difference{"target", a.Target, b.Target},
		Difference{"device", fmt.Sprintf("%d:%d", a.Major, a.Minor), fmt.Sprintf("%d:%d", b.Major, b.Minor)},
		Difference{"hard link to", d.was.link(), d.is.link()},
	)
	if !d.o.IgnoreTimes && !a.Mtime.Equal(b.Mtime) {
		list = append(list, Difference{"mtime", a.Mtime.Format(time.RFC3339Nano), b.Mtime.Format(time.RFC3339Nano)})
	}
	more, err := d.compareXattrs(a, b)
	if err != nil {
		return nil, err
	}
	list = append(list, more...)
	if a.Type() == TypeRegular {
		more, err := d.compareContent(ctx, a, b)
		return append(list, more...), err
	}
	return list, nil
}

// changes leaves out what is the same.
func changes(list ...Difference) []Difference {
	return slices.DeleteFunc(list, func(d Difference) bool { return d.Was == d.Is })
}

func (d *differ) compareXattrs(a, b *Stat) ([]Difference, error) {
	was, err := d.was.t.Xattrs(a)
	if err != nil {
		return nil, err
	}
	is, err := d.is.t.Xattrs(b)
	if err != nil || maps.Equal(was, is) {
		return nil, err
	}
	names := slices.AppendSeq(slices.Collect(maps.Keys(was)), maps.Keys(is))
	slices.Sort(names)
	var list []Difference
	for _, name := range slices.Compact(names) {
		one, here := was[name]
		two, there := is[name]
		if here != there || one != two {
			list = append(list, Difference{"xattr " + name, xattrText(one, here), xattrText(two, there)})
		}
	}
	return list, nil
}

func xattrText(value string, ok bool) string {
	if !ok {
		return ""
	}
	return fmt.Sprintf("%q", value)
}
