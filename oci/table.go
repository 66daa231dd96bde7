package oci

import (
	"archive/tar"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"path"
	"sort"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// table is what a layer says about its entries, without their contents.
type table struct {
	Size    int64  // bytes of the layer, decompressed
	Sum     uint32 // CRC-32C of the layer's blob, which had the right digest
	Entries []entry
}

// entry is one entry of a layer, checked, its names clean: relative, without
// . or .., empty for the root.
type entry struct {
	Index  int32 // position in the layer's tar
	Type   byte  // tar.TypeReg, TypeLink, TypeSymlink, TypeDir, TypeChar, TypeBlock or TypeFifo
	Mode   uint32
	UID    uint32
	GID    uint32
	Major  uint32
	Minor  uint32
	Nanos  int32
	Second int64
	Size   int64 // of a regular file, holes included
	Name   string
	Link   string // clean target of a hard link; target of a symlink as it is written
	User   string
	Group  string
	Xattrs []xattr // by name
}

type xattr struct{ Name, Value string }

const (
	paxXattr     = "SCHILY.xattr."
	paxXattrBSD  = "LIBARCHIVE.xattr." // libarchive's: the name URL-encoded, the value base64
	maxXattrName = 255                 // XATTR_NAME_MAX
	maxXattrSize = 64 << 10            // XATTR_SIZE_MAX
)

// readTable reads a whole layer, verifies its digest and diff id and lists its
// entries.
func readTable(ctx context.Context, l v1.Layer, b *budget) (*table, error) {
	diffID, err := l.DiffID()
	if err != nil {
		return nil, err
	}
	r, err := openLayer(ctx, l, b)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	t := &table{}
	names := map[string]string{} // user and group names, each kept once
	for {
		hdr, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", r.next+1, err)
		}
		if hdr.Typeflag == tar.TypeXGlobalHeader {
			continue // says nothing that docker or containerd would heed
		}
		e, err := entryOf(hdr)
		if err != nil {
			return nil, fmt.Errorf("entry %s: %w", quote(hdr.Name), err)
		}
		if r.next > math.MaxInt32 {
			return nil, errors.New("too many entries")
		}
		e.Index = int32(r.next - 1)
		e.User, e.Group = intern(names, e.User), intern(names, e.Group)
		if err := b.addEntry(e.metadata()); err != nil {
			return nil, fmt.Errorf("entry %s: %w", quote(hdr.Name), err)
		}
		t.Entries = append(t.Entries, e)
	}
	if err := r.finishTar(diffID); err != nil {
		return nil, err
	}
	t.Size, t.Sum = r.count.n, r.sum.Sum32()
	return t, nil
}

func intern(m map[string]string, s string) string {
	if known, ok := m[s]; ok {
		return known
	}
	if len(m) < 1000 {
		m[s] = s
	}
	return s
}

// metadata is what the entry's texts cost in memory.
func (e *entry) metadata() int64 {
	n := len(e.Name) + len(e.Link)
	for _, x := range e.Xattrs {
		n += len(x.Name) + len(x.Value)
	}
	return int64(n)
}

// entryOf checks what a tar header says and brings it into one form.
func entryOf(h *tar.Header) (entry, error) {
	name, err := cleanName(h.Name)
	if err != nil {
		return entry{}, err
	}
	e := entry{
		Type: h.Typeflag, Name: name, User: h.Uname, Group: h.Gname,
		// The type is in Typeflag; some tools repeat it in the mode.
		Mode:   uint32(h.Mode & 0o7777),
		Second: h.ModTime.Unix(), Nanos: int32(h.ModTime.Nanosecond()),
	}
	if h.Uid < 0 || int64(h.Uid) > math.MaxUint32 || h.Gid < 0 || int64(h.Gid) > math.MaxUint32 {
		return entry{}, fmt.Errorf("owner %d:%d is out of range", h.Uid, h.Gid)
	}
	e.UID, e.GID = uint32(h.Uid), uint32(h.Gid)
	switch h.Typeflag {
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse: // 0 is the regular file of before POSIX
		e.Type, e.Size = tar.TypeReg, h.Size
	case tar.TypeDir, tar.TypeFifo:
	case tar.TypeSymlink:
		e.Link, e.Mode = h.Linkname, 0o777 // the only one that symlink(2) gives them
		if e.Link == "" || len(e.Link) >= maxPath {
			return entry{}, fmt.Errorf("symbolic link's target has %d bytes", len(e.Link))
		}
	case tar.TypeLink:
		if e.Link, err = cleanName(h.Linkname); err != nil {
			return entry{}, fmt.Errorf("hard link's target %s: %w", quote(h.Linkname), err)
		}
		if e.Link == "" {
			return entry{}, errors.New("hard link to the root directory")
		}
	case tar.TypeChar, tar.TypeBlock:
		// The kernel's own dev_t has 12 and 20 bits: include/linux/kdev_t.h.
		if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
			return entry{}, fmt.Errorf("device number %d:%d is out of range", h.Devmajor, h.Devminor)
		}
		e.Major, e.Minor = uint32(h.Devmajor), uint32(h.Devminor)
	default:
		return entry{}, fmt.Errorf("unknown type %q", h.Typeflag)
	}
	e.Xattrs, err = xattrsOf(h.PAXRecords)
	return e, err
}

// cleanName makes a name relative to the root and refuses what no file system
// could hold and what leads out of it.
func cleanName(s string) (string, error) {
	if len(s) > maxPath {
		return "", fmt.Errorf("path has %d bytes; Linux opens at most %d", len(s), maxPath)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return "", errors.New("path holds a zero byte")
	}
	clean := path.Clean(strings.TrimLeft(s, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", errors.New("path leads out of the root directory")
	}
	if clean == "." {
		return "", nil
	}
	for part := range strings.SplitSeq(clean, "/") {
		if len(part) > maxName {
			return "", fmt.Errorf("path has a name of %d bytes; Linux allows %d", len(part), maxName)
		}
	}
	return clean, nil
}

// quote writes a name out of a layer for an error message, which should stay
// readable though the name is long.
func quote(name string) string {
	if q := strconv.Quote(name); len(q) <= 300 {
		return q
	}
	return fmt.Sprintf("%q… (%d bytes)", name[:60], len(name))
}

func xattrsOf(records map[string]string) ([]xattr, error) {
	var list []xattr
	for key, value := range records {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok {
			encoded, ok := strings.CutPrefix(key, paxXattrBSD)
			if !ok {
				continue
			}
			// GNU tar's and star's spelling wins where a tar has both.
			var err error
			if name, err = url.PathUnescape(encoded); err != nil {
				return nil, fmt.Errorf("extended attribute %s: %w", quote(key), err)
			}
			if _, both := records[paxXattr+name]; both {
				continue
			}
			raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
			if err != nil {
				return nil, fmt.Errorf("extended attribute %s: %w", quote(key), err)
			}
			value = string(raw)
		}
		if name == "" || len(name) > maxXattrName || strings.ContainsAny(name, "=\x00") {
			return nil, fmt.Errorf("extended attribute has the name %s", quote(name))
		}
		if len(value) > maxXattrSize {
			return nil, fmt.Errorf("extended attribute %s has %d bytes; Linux allows %d", quote(name), len(value), maxXattrSize)
		}
		list = append(list, xattr{name, value})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list, nil
}

// header is the entry as a header of the flattened tar.
func (e *entry) header(name string) *tar.Header {
	h := &tar.Header{
		Format: tar.FormatPAX, Typeflag: e.Type, Name: name, Mode: int64(e.Mode),
		Uid: int(e.UID), Gid: int(e.GID), Uname: e.User, Gname: e.Group,
		Size: e.Size, ModTime: time.Unix(e.Second, int64(e.Nanos)),
		Devmajor: int64(e.Major), Devminor: int64(e.Minor),
	}
	switch e.Type {
	case tar.TypeDir:
		h.Name += "/"
	case tar.TypeSymlink:
		h.Linkname = e.Link
	}
	for _, x := range e.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = make(map[string]string, len(e.Xattrs))
		}
		h.PAXRecords[paxXattr+x.Name] = x.Value
	}
	return h
}
