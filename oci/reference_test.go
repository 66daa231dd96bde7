package oci

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"sort"
	"strings"
	"testing"
)

// mergeAnotherWay merges layers in another way than Flatten does, to compare with:
// one flat map of paths, contents kept in memory, prefixes deleted one by one.
// It knows nothing of hostile input.
func mergeAnotherWay(t testing.TB, layers [][]byte) []string {
	t.Helper()
	born := 0
	fs := refFS{"": {&refFile{tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}, nil}, 0}}
	for _, b := range layers {
		fs.apply(readEntries(t, b), &born)
	}
	var names []string
	for name := range fs {
		names = append(names, name)
	}
	// As Flatten does: a file is written under the oldest of its names.
	sort.Strings(names)
	first := map[*refFile]string{}
	for _, name := range names {
		f := fs[name].refFile
		if old, ok := first[f]; !ok || fs[name].born < fs[old].born {
			first[f] = name
		}
	}
	var lines []string
	for _, name := range names {
		f := fs[name].refFile
		h, body := f.Header, f.body
		h.Name = name
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if name == "" {
			h.Name = "./"
		}
		if first[f] != name {
			h.Typeflag, h.Linkname, h.PAXRecords, body = tar.TypeLink, first[f], nil, nil
		}
		lines = append(lines, describe(&h, body))
	}
	sort.Strings(lines)
	return lines
}

type refFile struct {
	tar.Header
	body []byte
}

// refName is a name of a file, and when it was given.
type refName struct {
	*refFile
	born int
}

type refFS map[string]refName

func readEntries(t testing.TB, b []byte) []*refFile {
	t.Helper()
	var list []*refFile
	tr := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		for k, v := range h.PAXRecords {
			if k == "LIBARCHIVE.xattr.user.x%3Ay" && v == "aGVsbG8" {
				h.PAXRecords[paxXattr+"user.x:y"] = "hello"
			}
		}
		list = append(list, &refFile{*h, body})
	}
}

func rel(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

// resolve follows symlinks in p, all of them, by rewriting the path.
func (fs refFS) resolve(p string) string {
	for range 100 {
		parts := strings.Split(rel(p), "/")
		done := true
		for i := range parts {
			prefix := strings.Join(parts[:i+1], "/")
			if f := fs[prefix]; f.refFile != nil && f.Typeflag == tar.TypeSymlink {
				target := f.Linkname
				if !strings.HasPrefix(target, "/") {
					target = path.Join("/", path.Dir(prefix), target)
				}
				p, done = path.Join(target, strings.Join(parts[i+1:], "/")), false
				break
			}
		}
		if done {
			return rel(p)
		}
	}
	return "loop"
}

func (fs refFS) remove(p string, self bool) {
	for name := range fs {
		if self && name == p || name != "" && strings.HasPrefix(name, p+"/") || p == "" && name != "" {
			delete(fs, name)
		}
	}
}

func (fs refFS) mkdirs(p string) {
	for p = rel(p); p != "" && p != "."; p = path.Dir(p) {
		if fs[p].refFile == nil {
			fs[p] = refName{&refFile{tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}, nil}, 0}
		}
	}
}

func (fs refFS) apply(entries []*refFile, born *int) {
	made := map[string]bool{}
	before := refFS{}
	for name, f := range fs {
		before[name] = f
	}
	for _, e := range entries {
		if e.Typeflag == tar.TypeDir {
			made[rel(e.Name)] = true
		}
	}
	for _, e := range entries {
		dir, base := path.Split(rel(e.Name))
		if !strings.HasPrefix(base, ".wh.") || strings.HasPrefix(base, ".wh..wh.") && base != ".wh..wh..opq" {
			continue
		}
		if f := fs[rel(dir)]; f.refFile != nil && f.Typeflag == tar.TypeSymlink && made[rel(dir)] {
			continue
		}
		if base == ".wh..wh..opq" {
			fs.remove(fs.resolve(dir), false)
		} else {
			fs.remove(rel(path.Join(fs.resolve(dir), base[4:])), true)
		}
	}
	for _, e := range entries {
		dir, base := path.Split(rel(e.Name))
		if strings.HasPrefix(base, ".wh.") && (!strings.HasPrefix(base, ".wh..wh.") || base == ".wh..wh..opq") {
			continue
		}
		in := fs.resolve(dir)
		fs.mkdirs(in)
		at := rel(path.Join(in, base))
		file := e
		if e.Typeflag == tar.TypeLink {
			tdir, tbase := path.Split(rel(e.Linkname))
			target := rel(path.Join(fs.resolve(tdir), tbase))
			if file = fs[target].refFile; file == nil {
				file = before[target].refFile
			}
		}
		if old := fs[at].refFile; old == file {
			continue
		} else if old != nil && (old.Typeflag != tar.TypeDir || e.Typeflag != tar.TypeDir) {
			fs.remove(at, true)
		}
		*born++
		fs[at] = refName{file, *born}
	}
	for name := range fs {
		if strings.HasPrefix(name, ".wh..wh.") || strings.Contains(name, "/.wh..wh.") {
			delete(fs, name)
		}
	}
}

// sparse is GNU tar's old format: one file of size bytes, all hole but for
// "data" at its end.
func sparse(t testing.TB, size int64) []byte {
	t.Helper()
	var hdr [512]byte
	copy(hdr[0:], "sparse")
	copy(hdr[100:], "0000644\x00")
	copy(hdr[108:], "0000000\x00")
	copy(hdr[116:], "0000000\x00")
	copy(hdr[124:], fmt.Sprintf("%011o\x00", 4))
	copy(hdr[136:], fmt.Sprintf("%011o\x00", 1000))
	hdr[156] = 'S'
	copy(hdr[257:], "ustar  \x00")
	base256 := func(at int, n int64) {
		hdr[at] = 0x80
		for i := 11; i > 3; i-- {
			hdr[at+i] = byte(n)
			n >>= 8
		}
	}
	base256(386, size-4)
	copy(hdr[398:], fmt.Sprintf("%011o\x00", 4))
	base256(483, size)
	checksum(&hdr)
	return append(append(hdr[:], pad("data")...), make([]byte, 1024)...)
}

// paxSparse is the same in the PAX format, version 0.1.
func paxSparse(size int64) []byte {
	record := func(k, v string) string {
		n := len(k) + len(v) + 3
		for len(fmt.Sprint(n))+len(k)+len(v)+3 != n {
			n = len(fmt.Sprint(n)) + len(k) + len(v) + 3
		}
		return fmt.Sprintf("%d %s=%s\n", n, k, v)
	}
	records := record("GNU.sparse.size", fmt.Sprint(size)) + record("GNU.sparse.numblocks", "1") +
		record("GNU.sparse.map", fmt.Sprintf("%d,4", size-4)) + record("GNU.sparse.name", "sparse")
	block := func(kind byte, size int) []byte {
		var hdr [512]byte
		copy(hdr[0:], "placeholder")
		copy(hdr[100:], "0000644\x00")
		copy(hdr[108:], "0000000\x00")
		copy(hdr[116:], "0000000\x00")
		copy(hdr[124:], fmt.Sprintf("%011o\x00", size))
		copy(hdr[136:], fmt.Sprintf("%011o\x00", 1000))
		hdr[156] = kind
		copy(hdr[257:], "ustar\x0000")
		checksum(&hdr)
		return hdr[:]
	}
	b := append(block('x', len(records)), pad(records)...)
	b = append(b, block('0', 4)...)
	return append(append(b, pad("data")...), make([]byte, 1024)...)
}

func checksum(hdr *[512]byte) {
	copy(hdr[148:], "        ")
	sum := 0
	for _, c := range hdr {
		sum += int(c)
	}
	copy(hdr[148:], fmt.Sprintf("%06o\x00 ", sum))
}

func pad(s string) []byte {
	b := make([]byte, (len(s)+511)/512*512)
	copy(b, s)
	return b
}
