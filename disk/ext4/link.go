package ext4

import (
	"archive/tar"
	"fmt"
	"strings"
)

// link is a hard link whose target had not come when it was added.
type link struct {
	dir          *directory
	name, target string
	path         string // as given, for errors
}

// addLink gives a file one more name.
func (w *Writer) addLink(dir *directory, name string, h *tar.Header) error {
	target := clean(h.Linkname)
	ino, ok := w.lookup(target)
	switch {
	case !ok || ino&pendingLink != 0:
		if err := w.clearPlace(dir, name); err != nil {
			return err
		}
		target, err := w.keep(target)
		if err != nil {
			return err
		}
		from, err := w.keep(h.Name)
		if err != nil {
			return err
		}
		dir.entries[name] = uint32(len(w.links)) | pendingLink
		w.links = append(w.links, link{dir, name, target, from})
		return nil
	case dir.entries[name] == ino:
		return nil
	}
	if err := w.clearPlace(dir, name); err != nil {
		return err
	}
	return w.setLink(dir, name, ino, target)
}

func (w *Writer) setLink(dir *directory, name string, ino uint32, target string) error {
	n := w.inodes.get(ino)
	switch {
	case n.dir != nil:
		return fmt.Errorf("hard link to directory %q", target)
	case n.links == maxLinks:
		return fmt.Errorf("%q has %d names, more is not possible", target, n.links)
	}
	n.links++
	dir.entries[name] = ino
	return nil
}

// lookup finds what a clean path stands for.
func (w *Writer) lookup(p string) (ino uint32, ok bool) {
	ino = rootInode
	for element := range strings.SplitSeq(p, "/") {
		if ino&pendingLink != 0 {
			return 0, false
		}
		n := w.inodes.get(ino)
		if n.dir == nil {
			return 0, false
		}
		if ino, ok = n.dir.entries[element]; !ok {
			return 0, false
		}
	}
	return ino, ok
}

// resolveLinks gives the links that came before their targets to them. A link may
// lead to another.
func (w *Writer) resolveLinks() error {
	for i := range w.links {
		// Follow the chain to a file, then point all of it there.
		var chain []uint32
		at := uint32(i) | pendingLink
		for at&pendingLink != 0 {
			l := w.links[at&^pendingLink]
			if l.dir.entries[l.name] != at { // replaced or resolved
				break
			}
			if chain = append(chain, at&^pendingLink); len(chain) > len(w.links) {
				return fmt.Errorf("add %q to ext4: hard link leads back to itself", l.path)
			}
			next, ok := w.lookup(l.target)
			if !ok {
				return fmt.Errorf("add %q to ext4: hard link to %q, which is not there", l.path, l.target)
			}
			at = next
		}
		for _, c := range chain {
			l := w.links[c]
			if err := w.setLink(l.dir, l.name, at, l.target); err != nil {
				return fmt.Errorf("add %q to ext4: %w", l.path, err)
			}
		}
	}
	return nil
}
