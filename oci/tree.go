package oci

import (
	"archive/tar"
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// tree is the merged file system while layers are laid upon one another. It
// holds no contents, only where they are: in which layer, at which entry.
type tree struct {
	root   *node
	budget *budget
	steps  int                       // path components looked up so far
	gone   map[*node]map[string]bool // of directories: what the layer applied last has taken away, or put something else for
}

// position is where an entry is: layer, then index in that layer's tar.
type position struct{ layer, index int32 }

func (p position) compare(q position) int {
	return cmp.Or(cmp.Compare(p.layer, q.layer), cmp.Compare(p.index, q.index))
}

// inode is a file, however many names it has.
type inode struct {
	*entry // of the layer that made it
	at     position
	first  *node // the name under which it is written; the others are hard links to that
}

// node is a name.
type node struct {
	name     string
	length   int   // of the path
	parent   *node // nil for the root
	inode    *inode
	at       position
	children map[string]*node // of a directory
	written  bool
}

const (
	whiteout       = ".wh."         // hides the name that follows, in lower layers
	whiteoutOpaque = ".wh..wh..opq" // hides all that lower layers have in this directory
	whiteoutMeta   = ".wh..wh."     // aufs's own bookkeeping: no part of the file system
)

func newTree(b *budget) *tree {
	root := &node{inode: impliedDir(position{}), children: map[string]*node{}}
	return &tree{root: root, budget: b}
}

// impliedDir is a directory that no entry describes: 0755 of root, 1970, as
// Docker makes them but for the time, which is the hour of unpacking there.
func impliedDir(at position) *inode {
	return &inode{entry: &entry{Type: tar.TypeDir, Mode: 0o755}, at: at}
}

func (n *node) path() string {
	if n.parent == nil {
		return ""
	}
	end := n.length
	buf := make([]byte, end)
	for p := n; p.parent != nil; p = p.parent {
		end -= len(p.name)
		copy(buf[end:], p.name)
		if end > 0 {
			end--
			buf[end] = '/'
		}
	}
	return string(buf)
}

// apply lays a layer upon the tree, which keeps the entries. Whiteouts come first wherever they stand
// in the layer, for they hide what lower layers have and never a file of their
// own layer (layer.md, Whiteouts).
func (t *tree) apply(layer int, entries []entry) error {
	var whiteouts []*entry
	for i := range entries {
		if strings.HasPrefix(path.Base(entries[i].Name), whiteout) {
			whiteouts = append(whiteouts, &entries[i])
		}
	}
	t.gone = map[*node]map[string]bool{}
	hidden := t.hiddenTargets(whiteouts, entries)
	if err := t.applyWhiteouts(whiteouts, entries); err != nil {
		return err
	}
	aufs := map[*node]bool{} // directories that hold bookkeeping
	for i := range entries {
		e := &entries[i]
		base := path.Base(e.Name)
		if strings.HasPrefix(base, whiteout) && (!strings.HasPrefix(base, whiteoutMeta) || base == whiteoutOpaque) {
			continue
		}
		if err := t.add(e, position{int32(layer), e.Index}, hidden[e], aufs); err != nil {
			return fmt.Errorf("entry %s: %w", quote(e.Name), err)
		}
		e.Name = "" // names are the nodes' from here on; this one may be long
	}
	// Hard links may have led to the bookkeeping's files and keep them.
	for dir := range aufs {
		for name := range dir.children {
			if strings.HasPrefix(name, whiteoutMeta) {
				delete(dir.children, name)
			}
		}
	}
	return nil
}

// hiddenTargets finds the files of lower layers that hard links of this layer
// are made from, before this layer's whiteouts take their names away.
func (t *tree) hiddenTargets(whiteouts []*entry, entries []entry) map[*entry]*inode {
	files := map[*entry]*inode{}
	if len(whiteouts) == 0 {
		return files
	}
	for i := range entries {
		if e := &entries[i]; e.Type == tar.TypeLink {
			if file, err := t.file(e.Link); err == nil {
				files[e] = file
			}
		}
	}
	return files
}

func (t *tree) applyWhiteouts(whiteouts []*entry, all []entry) error {
	if len(whiteouts) == 0 {
		return nil
	}
	// A symlink that this layer replaces by a directory is not followed: the
	// whiteouts below speak of the new directory, which hides everything.
	dirs := map[string]bool{}
	for i := range all {
		if all[i].Type == tar.TypeDir {
			dirs[all[i].Name] = true
		}
	}
	for _, w := range whiteouts {
		dir, base := path.Split(w.Name)
		hidden := strings.TrimPrefix(base, whiteout)
		if strings.HasPrefix(base, whiteoutMeta) && base != whiteoutOpaque {
			continue
		}
		if hidden == "" || hidden == "." || hidden == ".." {
			return fmt.Errorf("entry %s: whiteout of nothing", quote(w.Name))
		}
		parent, err := t.find(dir, dirs)
		if errors.Is(err, errNotDirectory) || (err == nil && parent == nil) {
			continue // nothing there to hide
		}
		if err != nil {
			return fmt.Errorf("entry %s: %w", quote(w.Name), err)
		}
		if base == whiteoutOpaque {
			for name := range parent.children {
				t.remove(parent, name)
			}
		} else {
			t.remove(parent, hidden)
		}
	}
	return nil
}

var (
	errNotDirectory = errors.New("is not a directory")
	errNoFile       = errors.New("does not exist")
)

// find walks to a directory without making any; nil when it does not exist.
// Symlinks are followed inside the root, but none at a path in replaced.
func (t *tree) find(p string, replaced map[string]bool) (*node, error) {
	return t.walk(p, replaced, func(*node, string) (*node, error) { return nil, nil })
}

// walk follows a path from the root, and symlinks in it, the last one too,
// all inside the root as chroot(2) would have it. What is missing, absent
// makes; when that gives nil, so does walk.
func (t *tree) walk(p string, replaced map[string]bool, absent func(*node, string) (*node, error)) (*node, error) {
	cur, links := t.root, 0
	for p != "" {
		var part string
		part, p, _ = strings.Cut(p, "/")
		if t.steps++; t.steps > maxSteps {
			return nil, errors.New("the image's symbolic links lead in too many circles")
		}
		switch part {
		case "", ".":
			continue
		case "..":
			if cur.parent != nil {
				cur = cur.parent
			}
			continue
		}
		next := cur.children[part]
		if next == nil {
			var err error
			if next, err = absent(cur, part); next == nil || err != nil {
				return nil, err
			}
		}
		switch next.inode.Type {
		case tar.TypeDir:
			cur = next
		case tar.TypeSymlink:
			if replaced != nil && replaced[next.path()] {
				return nil, nil
			}
			if links++; links > maxSymlinks {
				return nil, fmt.Errorf("more than %d symbolic links on the way, at %s", maxSymlinks, quote(next.path()))
			}
			if strings.HasPrefix(next.inode.Link, "/") {
				cur = t.root
			}
			p = next.inode.Link + "/" + p
		default:
			return nil, fmt.Errorf("%s %w", quote(next.path()), errNotDirectory)
		}
	}
	return cur, nil
}

// add lays one entry upon the tree. hidden is what its hard link's target was
// before whiteouts; aufs collects the directories with bookkeeping in them.
func (t *tree) add(e *entry, at position, hidden *inode, aufs map[*node]bool) error {
	if e.Name == "" {
		if e.Type != tar.TypeDir {
			return errors.New("the root directory would be no directory")
		}
		t.root.inode, t.root.at = &inode{entry: e, at: at}, at
		return nil
	}
	dir, base := path.Split(e.Name)
	parent, err := t.walk(dir, nil, func(in *node, name string) (*node, error) {
		if strings.HasPrefix(name, whiteout) && !strings.HasPrefix(name, whiteoutMeta) {
			return nil, fmt.Errorf("names that begin with %q are reserved", whiteout)
		}
		if strings.HasPrefix(name, whiteoutMeta) {
			aufs[in] = true
		}
		if len(name) > maxName { // may come out of a symlink, which nobody has checked
			return nil, fmt.Errorf("path has a name of %d bytes; Linux allows %d", len(name), maxName)
		}
		if err := t.budget.addEntry(int64(len(name))); err != nil {
			return nil, err
		}
		return in.put(name, impliedDir(at), at)
	})
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteoutMeta) {
		aufs[parent] = true
	}
	old := parent.children[base]
	switch e.Type {
	case tar.TypeLink:
		file, err := t.file(e.Link)
		if errors.Is(err, errNoFile) && hidden != nil {
			file, err = hidden, nil
		}
		if err != nil {
			return fmt.Errorf("hard link's target %s %w", quote(e.Link), err)
		}
		if old != nil && old.inode == file {
			return nil // tar writes such a link when it was given a file twice
		}
		// The file, not its name, is what the new name stands for.
		t.remove(parent, base)
		_, err = parent.put(base, file, at)
		return err
	case tar.TypeDir:
		if old != nil && old.inode.Type == tar.TypeDir { // what is in it stays
			old.inode, old.at = &inode{entry: e, at: at}, at
			return nil
		}
	}
	t.remove(parent, base)
	_, err = parent.put(base, &inode{entry: e, at: at}, at)
	return err
}

// remove takes a name out of a directory, where it is there.
func (t *tree) remove(dir *node, name string) {
	if dir.children[name] == nil {
		return
	}
	delete(dir.children, name)
	if t.gone[dir] == nil {
		t.gone[dir] = map[string]bool{}
	}
	t.gone[dir][name] = true
}

// file finds what a hard link is made from: not a directory, and a symlink
// only as itself.
func (t *tree) file(p string) (*inode, error) {
	dir, base := path.Split(p)
	in, err := t.find(dir, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot be reached: %w", err)
	}
	if in == nil || in.children[base] == nil {
		return nil, errNoFile
	}
	if i := in.children[base].inode; i.Type != tar.TypeDir {
		return i, nil
	}
	return nil, errors.New("is a directory")
}

// put gives a directory a new name, in the place of what had it before.
func (n *node) put(name string, i *inode, at position) (*node, error) {
	child := &node{name: strings.Clone(name), length: len(name), parent: n, inode: i, at: at}
	if n.parent != nil {
		child.length += n.length + 1
	}
	if child.length > maxPath { // symlinks lead deeper than names are long
		return nil, fmt.Errorf("path has %d bytes; Linux opens at most %d", child.length, maxPath)
	}
	if i.Type == tar.TypeDir {
		child.children = map[string]*node{}
	}
	n.children[child.name] = child
	return child, nil
}

// order lists all names in the order of their contents in the layers: for a
// single layer, that of its tar. A file comes where its content is, under the
// first of its names; a directory no later than what is in it, which is the
// writer's to see to. The tree is taken apart.
func (t *tree) order() []*node {
	var list []*node
	stack := []*node{t.root}
	for len(stack) > 0 {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		list = append(list, n)
		if i := n.inode; i.first == nil || n.before(i.first) {
			i.first = n
		}
		for _, child := range n.children {
			stack = append(stack, child)
		}
		n.children = nil // the list has them: each can go when it is written
	}
	slices.SortFunc(list, func(a, b *node) int {
		if c := a.place().compare(b.place()); c != 0 {
			return c
		}
		return strings.Compare(a.path(), b.path()) // directories implied by one entry
	})
	return list
}

func (n *node) before(m *node) bool {
	if c := n.at.compare(m.at); c != 0 {
		return c < 0
	}
	return n.path() < m.path()
}

// place is where in the stream a name belongs.
func (n *node) place() position {
	if n.inode.first == n {
		return n.inode.at
	}
	return n.at
}
