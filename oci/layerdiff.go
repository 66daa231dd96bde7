package oci

import (
	"archive/tar"
	"slices"
	"strings"
)

// overlayXattr begins the attributes by which overlayfs keeps what it knows of a
// directory (Documentation/filesystems/overlayfs.rst). What a layer has of them is not
// for it: it would follow them.
const overlayXattr = "trusted.overlay."

// changes lists what the layer that was applied last has changed, as overlayfs wants it
// in a directory of its own: with the directories that lead there, a device 0:0 for what
// is gone, and an attribute of what a directory of before no longer shows through. In the
// order in which it is written.
func (t *tree) changes(layer int) []*node {
	c := changes{int32(layer), t.gone, map[*inode]*inode{}}
	root := c.of(t.root)
	if root == nil {
		root = c.copy(t.root)
	}
	return (&tree{root: root}).order()
}

type changes struct {
	layer int32
	gone  map[*node]map[string]bool
	files map[*inode]*inode // copies; hard links within the layer stay so
}

// of copies a name with what is below it, as far as it has changed; nil where nothing has.
func (c *changes) of(n *node) *node {
	var below []*node
	for name, child := range n.children {
		changed := c.of(child)
		if changed == nil {
			continue
		}
		if child.inode.Type == tar.TypeDir && c.gone[n][name] {
			opaque := *changed.inode.entry
			opaque.Xattrs = append(slices.Clone(opaque.Xattrs), xattr{overlayXattr + "opaque", "y"})
			changed.inode.entry = &opaque
		}
		below = append(below, changed)
	}
	for name := range c.gone[n] {
		if n.children[name] == nil {
			below = append(below, &node{name: name, length: n.length + 1 + len(name), inode: &inode{entry: &entry{Type: tar.TypeChar}, at: position{layer: c.layer}}, at: position{layer: c.layer}})
		}
	}
	if len(below) == 0 && n.at.layer != c.layer && n.inode.at.layer != c.layer {
		return nil
	}
	changed := c.copy(n)
	for _, child := range below {
		child.parent = changed
		changed.children[child.name] = child
	}
	return changed
}

func (c *changes) copy(n *node) *node {
	file := c.files[n.inode]
	if file == nil {
		file = &inode{entry: n.inode.entry, at: n.inode.at}
		c.files[n.inode] = file
		if own := func(x xattr) bool { return strings.HasPrefix(x.Name, overlayXattr) }; slices.ContainsFunc(file.Xattrs, own) {
			e := *file.entry
			e.Xattrs = slices.DeleteFunc(slices.Clone(e.Xattrs), own)
			file.entry = &e
		}
	}
	changed := &node{name: n.name, length: n.length, inode: file, at: n.at}
	if file.Type == tar.TypeDir {
		changed.children = map[string]*node{}
	}
	return changed
}
