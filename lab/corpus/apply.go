package corpus

import (
	"bytes"
	"maps"
	"path"
	"slices"
	"strings"

	"lab/lab/corpus/listing"
)

const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	aufsPrefix     = ".wh..wh." // aufs's own files, but for the marker
)

func whiteoutOf(p string) string {
	dir, base := path.Split(p)
	return dir + whiteoutPrefix + base
}

// Apply lays layers upon one another by the rules of layer.md, on a file system
// without limits. It is another way than package oci's to do so, to compare
// with: one flat map of whole paths from which prefixes are deleted one by one,
// fed with what the entries mean, not with what a reader of tar made of them. It
// knows nothing of hostile input.
func Apply(layers [][]Entry) []listing.File {
	all := fs{".": &listing.File{Mode: listing.TypeDir | 0o755, Content: "-"}}
	for _, l := range layers {
		all.apply(l)
	}
	return listing.Files(all)
}

// fs is what is at each path; hard links are the same file.
type fs map[string]*listing.File

func (f fs) apply(entries []Entry) {
	// "Files that are present in the same layer as a whiteout file can only be
	// hidden by whiteout files in subsequent layers": so all whiteouts first.
	before := maps.Clone(f)
	for _, e := range entries {
		dir, base := split(e.Name)
		switch {
		case !isWhiteout(e.Name) || f.replaces(dir, entries):
		case base == opaqueMarker:
			f.removeBelow(f.resolve(dir))
		default:
			f.remove(path.Join(f.resolve(dir), strings.TrimPrefix(base, whiteoutPrefix)))
		}
	}
	for _, e := range entries {
		if e.Type == TypeGlobal || isWhiteout(e.Name) {
			continue
		}
		dir, base := split(e.Name)
		at := path.Join(f.makeDirectories(f.resolve(dir)), base)
		file, old := e.file(), f[at]
		if e.Type == TypeLink {
			dir, base := split(e.Link)
			if file = f[path.Join(f.resolve(dir), base)]; file == nil {
				file = before[path.Join(before.resolve(dir), base)] // hidden by this very layer
			}
		}
		switch {
		case old == file:
		case old != nil && old.Type() == listing.TypeDir && file.Type() == listing.TypeDir:
			// "If the entry and the existing path are both directories, then the
			// existing path's attributes MUST be replaced".
			f[at] = file
		default:
			f.remove(at)
			f[at] = file
		}
	}
	// What aufs kept for itself is gone, though not files linked to from elsewhere.
	for p := range f {
		if strings.HasPrefix(p, aufsPrefix) || strings.Contains(p, "/"+aufsPrefix) {
			delete(f, p)
		}
	}
}

// isWhiteout tells whether an entry hides something.
func isWhiteout(name string) bool {
	_, base := split(name)
	return strings.HasPrefix(base, whiteoutPrefix) && (!strings.HasPrefix(base, aufsPrefix) || base == opaqueMarker)
}

// split takes a path to a directory and a name in it, both from the root.
func split(name string) (dir, base string) {
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if clean == "" {
		return ".", "."
	}
	return path.Dir(clean), path.Base(clean)
}

// replaces tells whether a symlink on the way to a whiteout is one that its own
// layer replaces by a directory. It speaks of the new one then, in which nothing
// of lower layers is.
func (f fs) replaces(dir string, entries []Entry) bool {
	return slices.ContainsFunc(entries, func(e Entry) bool {
		at, base := split(e.Name)
		at = path.Join(at, base)
		return e.Type == TypeDir && strings.HasPrefix(dir+"/", at+"/") && f[at] != nil && f[at].Type() == listing.TypeSymlink
	})
}

// resolve follows the symlinks in p, all of them and inside the root, by writing
// the path anew for each.
func (f fs) resolve(p string) string {
	for range 100 {
		parts := strings.Split(p, "/")
		link := -1
		for i := range parts {
			if at := f[path.Join(parts[:i+1]...)]; at != nil && at.Type() == listing.TypeSymlink {
				link = i
				break
			}
		}
		if link < 0 {
			return p
		}
		target := f[path.Join(parts[:link+1]...)].Content
		if !strings.HasPrefix(target, "/") {
			target = path.Join("/", path.Join(parts[:link]...), target)
		}
		p = strings.TrimPrefix(path.Join(target, path.Join(parts[link+1:]...)), "/")
		if p == "" {
			p = "."
		}
	}
	return "loop"
}

func (f fs) remove(p string) {
	f.removeBelow(p)
	delete(f, p)
}

func (f fs) removeBelow(p string) {
	for name := range f {
		if name != "." && (p == "." || strings.HasPrefix(name, p+"/")) {
			delete(f, name)
		}
	}
}

// makeDirectories makes what is missing of a path: 0755, root's, from 1970.
func (f fs) makeDirectories(p string) string {
	for at := p; at != "."; at = path.Dir(at) {
		if f[at] == nil {
			f[at] = &listing.File{Mode: listing.TypeDir | 0o755, Content: "-"}
		}
	}
	return p
}

var fileTypes = map[byte]uint32{
	TypeReg: listing.TypeRegular, TypeRegA: listing.TypeRegular, TypeCont: listing.TypeRegular, typeSparse: listing.TypeRegular,
	TypeDir: listing.TypeDir, TypeSymlink: listing.TypeSymlink, TypeChar: listing.TypeChar, TypeBlock: listing.TypeBlock, TypeFIFO: listing.TypeFIFO,
}

// file is what an entry makes.
func (e Entry) file() *listing.File {
	f := &listing.File{
		Mode: fileTypes[e.Type] | uint32(e.Mode&0o7777), UID: uint32(e.UID), GID: uint32(e.GID), Major: uint32(e.Major), Minor: uint32(e.Minor),
		Mtime: e.Time, Atime: e.Time, Ctime: e.Time, Content: "-",
	}
	if e.Type == TypeRegA && strings.HasSuffix(e.Name, "/") { // before POSIX there was no type for directories
		f.Mode = f.Mode&^listing.TypeMask | listing.TypeDir
	}
	switch f.Type() {
	case listing.TypeRegular:
		content := e.content()
		f.Size = int64(len(content))
		f.Content, _ = listing.Digest(bytes.NewReader(content), f.Size) // memory is read without errors
	case listing.TypeSymlink:
		// Linux has no other mode for them: symlink(2).
		f.Mode, f.Size, f.Content = listing.TypeSymlink|0o777, int64(len(e.Link)), e.Link
	}
	for _, m := range []map[string]string{e.XattrsBSD, e.Xattrs} {
		for name, value := range m {
			f.Xattrs = add(f.Xattrs, name, value)
		}
	}
	return f
}
