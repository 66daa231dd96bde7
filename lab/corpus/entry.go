package corpus

import (
	"archive/tar"
	"maps"
	"slices"

	"lab/lab/corpus/listing"
)

// Entry is one entry of a layer: what it means, and in which of tar's ways it
// is written.
type Entry struct {
	Name         string // as it is written
	Type         byte   // type flag; TypeRegA is '\0'
	Mode         int64
	UID, GID     int64
	User, Group  string
	Link         string // target of a hard link or symlink
	Major, Minor int64
	Time         listing.Time
	Atime, Ctime *listing.Time     // PAX only
	Body         string            // of a regular file
	Size         int64             // of a sparse file, whose data is in Spans
	Spans        []Span            // in order
	Xattrs       map[string]string // SCHILY.xattr, the specification's way
	XattrsBSD    map[string]string // LIBARCHIVE.xattr, bsdtar's own way
	Records      []Record          // PAX records besides, which mean nothing
	Form         Form
}

// Span is a piece of a sparse file that is not a hole.
type Span struct {
	Offset int64
	Data   string
}

// Record is one record of a PAX header.
type Record struct{ Key, Value string }

// Form is a dialect of tar.
type Form int

// The dialects. Those for sparse files write a PAX or GNU header with it.
const (
	PAX       Form = iota // POSIX.1-2001: records for what does not fit
	USTAR                 // POSIX.1-1988: names of 255 bytes in two fields
	GNU                   // long names in entries of their own, binary numbers
	GNUBinary             // GNU with every number binary, small ones too
	V7                    // before POSIX: no magic, no owner's name
	GNUSparse             // GNU's own: type S
	Sparse00              // PAX with a record for each offset and length
	Sparse01              // PAX with one record for all
	Sparse10              // PAX with the map in the data
)

// The types, by the names of archive/tar.
const (
	TypeReg      = tar.TypeReg
	TypeRegA     = '\x00'
	TypeCont     = tar.TypeCont
	TypeLink     = tar.TypeLink
	TypeSymlink  = tar.TypeSymlink
	TypeChar     = tar.TypeChar
	TypeBlock    = tar.TypeBlock
	TypeDir      = tar.TypeDir
	TypeFIFO     = tar.TypeFifo
	TypeGlobal   = tar.TypeXGlobalHeader
	typeExtended = tar.TypeXHeader
	typeSparse   = tar.TypeGNUSparse
	typeLongName = tar.TypeGNULongName
	typeLongLink = tar.TypeGNULongLink
)

// aTime is when the files of the corpus were made, unless that matters.
var aTime = listing.Time{Sec: 1_000_000_000}

// File is a regular file, 0644 of root.
func File(name, body string) Entry {
	return Entry{Name: name, Type: TypeReg, Mode: 0o644, Body: body, Time: aTime}
}

// Dir is a directory, 0755 of root. The name ends in a slash.
func Dir(name string) Entry { return Entry{Name: name, Type: TypeDir, Mode: 0o755, Time: aTime} }

// Symlink is a symbolic link.
func Symlink(name, target string) Entry {
	return Entry{Name: name, Type: TypeSymlink, Mode: 0o777, Link: target, Time: aTime}
}

// Hard is a hard link.
func Hard(name, target string) Entry {
	return Entry{Name: name, Type: TypeLink, Mode: 0o644, Link: target, Time: aTime}
}

// Whiteout hides the file that the base of the path names in lower layers.
func Whiteout(path string) Entry { return File(whiteoutOf(path), "") }

// Device is a character or block device, or a fifo.
func Device(name string, kind byte, major, minor int64) Entry {
	return Entry{Name: name, Type: kind, Mode: 0o600, Major: major, Minor: minor, Time: aTime}
}

// holes is a sparse file in one of the dialects for it.
func holes(name string, form Form, size int64, spans ...Span) Entry {
	return Entry{Name: name, Type: TypeReg, Mode: 0o644, Size: size, Spans: spans, Form: form, Time: aTime}
}

func (e Entry) mode(m int64) Entry         { e.Mode = m; return e }
func (e Entry) owner(uid, gid int64) Entry { e.UID, e.GID = uid, gid; return e }
func (e Entry) at(sec, nsec int64) Entry   { e.Time = listing.Time{Sec: sec, Nsec: nsec}; return e }
func (e Entry) form(f Form) Entry          { e.Form = f; return e }
func (e Entry) kind(t byte) Entry          { e.Type = t; return e }
func (e Entry) record(k, v string) Entry {
	e.Records = append(slices.Clone(e.Records), Record{k, v})
	return e
}
func (e Entry) xattr(name, v string) Entry  { e.Xattrs = add(e.Xattrs, name, v); return e }
func (e Entry) bsdtar(name, v string) Entry { e.XattrsBSD = add(e.XattrsBSD, name, v); return e }

func add(m map[string]string, k, v string) map[string]string {
	m = maps.Clone(m)
	if m == nil {
		m = make(map[string]string)
	}
	m[k] = v
	return m
}

// content is a regular file's bytes, holes and all.
func (e Entry) content() []byte {
	if e.Spans == nil && e.Size == 0 {
		return []byte(e.Body)
	}
	b := make([]byte, e.Size)
	for _, s := range e.Spans {
		copy(b[s.Offset:], s.Data)
	}
	return b
}
