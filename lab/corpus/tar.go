package corpus

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"lab/lab/corpus/listing"
)

// The tar formats: POSIX.1 pax ("ustar Interchange Format", "pax Interchange
// Format"), GNU tar's manual ("Basic Tar Format", "GNU Extensions to the
// Archive Format", "Storing Sparse Files"), and libarchive's tar(5).

const blockSize = 512

// Tar is the entries as an archive, with the two blocks of zeros at its end.
func Tar(entries ...Entry) []byte {
	var b []byte
	for _, e := range entries {
		b = append(b, e.encode()...)
	}
	return append(b, make([]byte, 2*blockSize)...)
}

// header is one block, its fields as bytes.
type header struct {
	name, link, prefix        string
	mode, uid, gid, size      string
	mtime, magic              string
	user, group, major, minor string
	kind                      byte
	rest                      []byte // from offset 345 or, with a magic of GNU's, 386
}

func (h header) block() []byte {
	b := make([]byte, blockSize)
	put := func(at, size int, s string) {
		if len(s) > size {
			s = s[:size]
		}
		copy(b[at:], s)
	}
	put(0, 100, h.name)
	put(100, 8, h.mode)
	put(108, 8, h.uid)
	put(116, 8, h.gid)
	put(124, 12, h.size)
	put(136, 12, h.mtime)
	put(148, 8, "        ")
	b[156] = h.kind
	put(157, 100, h.link)
	put(257, 8, h.magic)
	put(265, 32, h.user)
	put(297, 32, h.group)
	put(329, 8, h.major)
	put(337, 8, h.minor)
	put(345, 155, h.prefix)
	copy(b[386:], h.rest)
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	put(148, 8, fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// octal is a number in a field of that size; what does not fit is zero, and
// said elsewhere.
func octal(n int64, size int) string {
	if n < 0 || n >= 1<<(3*(size-1)) {
		n = 0
	}
	return fmt.Sprintf("%0*o\x00", size-1, n)
}

// binaryNumber is GNU's base-256: the top bit set, then a number in two's
// complement, most significant byte first.
func binaryNumber(n int64, size int) string {
	b := make([]byte, 16)
	binary.BigEndian.PutUint64(b[8:], uint64(n))
	if n < 0 {
		binary.BigEndian.PutUint64(b, 1<<64-1)
	}
	b = b[16-size:]
	b[0] |= 0x80
	return string(b)
}

// gnuNumber is octal where that fits.
func gnuNumber(n int64, size int) string {
	if n >= 0 && n < 1<<(3*(size-1)) {
		return octal(n, size)
	}
	return binaryNumber(n, size)
}

func pad(b []byte) []byte { return append(b, make([]byte, -len(b)&(blockSize-1))...) }

func (e Entry) encode() []byte {
	if e.Type == TypeGlobal {
		records := encodeRecords(e.Records)
		h := header{name: e.Name, kind: e.Type, mode: octal(0o644, 8), uid: octal(0, 8), gid: octal(0, 8), size: octal(int64(len(records)), 12), mtime: octal(0, 12), magic: "ustar\x0000"}
		return append(h.block(), pad(records)...)
	}
	switch e.Form {
	case GNU, GNUBinary, GNUSparse:
		return e.encodeGNU()
	case V7, USTAR:
		return e.encodePlain()
	}
	return e.encodePAX()
}

// plain is the header with what fits.
func (e Entry) plain(number func(int64, int) string) header {
	h := header{
		name: e.Name, link: e.Link, kind: e.Type, user: e.User, group: e.Group, magic: "ustar\x0000",
		mode: number(e.Mode, 8), uid: number(e.UID, 8), gid: number(e.GID, 8), size: number(int64(len(e.Body)), 12), mtime: number(e.Time.Sec, 12),
	}
	if e.Type == TypeChar || e.Type == TypeBlock {
		h.major, h.minor = number(e.Major, 8), number(e.Minor, 8)
	}
	return h
}

func (e Entry) encodePlain() []byte {
	h := e.plain(octal)
	if e.Form == V7 {
		h.magic, h.user, h.group, h.major, h.minor = "", "", "", "", ""
	} else if len(h.name) > 100 {
		// The prefix ends at a slash, which is in neither field.
		at := strings.LastIndexByte(h.name[:min(len(h.name), 156)], '/')
		h.prefix, h.name = h.name[:at], h.name[at+1:]
	}
	return append(h.block(), pad([]byte(e.Body))...)
}

func (e Entry) encodeGNU() []byte {
	number := gnuNumber
	if e.Form == GNUBinary {
		number = binaryNumber
	}
	var b []byte
	for _, long := range []struct {
		kind byte
		text string
	}{{typeLongLink, e.Link}, {typeLongName, e.Name}} {
		if len(long.text) > 100 {
			text := []byte(long.text + "\x00")
			h := header{name: "././@LongLink", kind: long.kind, mode: octal(0, 8), uid: octal(0, 8), gid: octal(0, 8), size: octal(int64(len(text)), 12), mtime: octal(0, 12), magic: "ustar  \x00"}
			b = append(append(b, h.block()...), pad(text)...)
		}
	}
	h := e.plain(number)
	h.magic = "ustar  \x00"
	data := []byte(e.Body)
	if e.Form == GNUSparse {
		var more [][]byte
		h.kind, data = typeSparse, nil
		h.rest, more = e.gnuMap()
		for _, s := range e.Spans {
			data = append(data, s.Data...)
		}
		h.size = gnuNumber(int64(len(data)), 12)
		b = append(b, h.block()...)
		for _, block := range more {
			b = append(b, block...)
		}
		return append(b, pad(data)...)
	}
	return append(append(b, h.block()...), pad(data)...)
}

// pieces is the spans with, as GNU tar writes it, an empty one at the end of a
// file that ends in a hole.
func (e Entry) pieces() []Span {
	list := slices.Clone(e.Spans)
	if n := len(list); n == 0 || list[n-1].Offset+int64(len(list[n-1].Data)) < e.Size {
		list = append(list, Span{Offset: e.Size})
	}
	return list
}

// gnuMap is four spans, whether more follow and the real size, from offset 386
// of the header; then blocks of 21 spans.
func (e Entry) gnuMap() (rest []byte, more [][]byte) {
	pieces := e.pieces()
	take := func(b []byte, n int) {
		for i := range min(n, len(pieces)) {
			copy(b[24*i:], gnuNumber(pieces[i].Offset, 12))
			copy(b[24*i+12:], gnuNumber(int64(len(pieces[i].Data)), 12))
		}
		if pieces = pieces[min(n, len(pieces)):]; len(pieces) > 0 {
			b[24*n] = 1
		}
	}
	rest = make([]byte, 126)
	take(rest, 4)
	copy(rest[97:], gnuNumber(e.Size, 12))
	for len(pieces) > 0 {
		block := make([]byte, blockSize)
		take(block, 21)
		more = append(more, block)
	}
	return rest, more
}

func (e Entry) encodePAX() []byte {
	h := e.plain(octal)
	records := slices.Clone(e.Records)
	say := func(k, v string) { records = append(records, Record{k, v}) }
	data := []byte(e.Body)
	if e.Form != PAX {
		data = e.sparseRecords(&h, say)
		h.size = octal(int64(len(data)), 12)
	}
	if long := len(e.Name) > 100 || !ascii(e.Name); long && e.Form != Sparse01 && e.Form != Sparse10 {
		say("path", e.Name)
	}
	if len(e.Link) > 100 || !ascii(e.Link) {
		say("linkpath", e.Link)
	}
	for _, n := range []struct {
		key   string
		value int64
	}{{"uid", e.UID}, {"gid", e.GID}} {
		if n.value >= 1<<21 {
			say(n.key, fmt.Sprint(n.value))
		}
	}
	if e.Time.Nsec != 0 || e.Time.Sec < 0 || e.Time.Sec >= 1<<33 {
		say("mtime", decimal(e.Time))
	}
	if e.Atime != nil {
		say("atime", decimal(*e.Atime))
	}
	if e.Ctime != nil {
		say("ctime", decimal(*e.Ctime))
	}
	for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
		say("SCHILY.xattr."+name, e.Xattrs[name])
	}
	for _, name := range slices.Sorted(maps.Keys(e.XattrsBSD)) {
		say("LIBARCHIVE.xattr."+url.PathEscape(name), base64.RawStdEncoding.EncodeToString([]byte(e.XattrsBSD[name])))
	}
	var b []byte
	if len(records) > 0 {
		text := encodeRecords(records)
		x := header{name: "PaxHeaders.0/entry", kind: typeExtended, mode: octal(0o644, 8), uid: octal(0, 8), gid: octal(0, 8), size: octal(int64(len(text)), 12), mtime: octal(0, 12), magic: "ustar\x0000"}
		b = append(x.block(), pad(text)...)
	}
	return append(append(b, h.block()...), pad(data)...)
}

// sparseRecords says the map in records, or in front of the data.
func (e Entry) sparseRecords(h *header, say func(k, v string)) []byte {
	var data []byte
	pieces := e.pieces()
	switch e.Form {
	case Sparse00:
		say("GNU.sparse.size", fmt.Sprint(e.Size))
		say("GNU.sparse.numblocks", fmt.Sprint(len(pieces)))
		for _, s := range pieces {
			say("GNU.sparse.offset", fmt.Sprint(s.Offset))
			say("GNU.sparse.numbytes", fmt.Sprint(len(s.Data)))
		}
	case Sparse01:
		var list []string
		for _, s := range pieces {
			list = append(list, fmt.Sprint(s.Offset), fmt.Sprint(len(s.Data)))
		}
		say("GNU.sparse.name", e.Name)
		say("GNU.sparse.size", fmt.Sprint(e.Size))
		say("GNU.sparse.numblocks", fmt.Sprint(len(pieces)))
		say("GNU.sparse.map", strings.Join(list, ","))
		h.name = "GNUSparseFile.0/entry"
	case Sparse10:
		say("GNU.sparse.major", "1")
		say("GNU.sparse.minor", "0")
		say("GNU.sparse.name", e.Name)
		say("GNU.sparse.realsize", fmt.Sprint(e.Size))
		data = fmt.Appendf(nil, "%d\n", len(pieces))
		for _, s := range pieces {
			data = fmt.Appendf(data, "%d\n%d\n", s.Offset, len(s.Data))
		}
		data = pad(data)
		h.name = "GNUSparseFile.0/entry"
	}
	for _, s := range pieces {
		data = append(data, s.Data...)
	}
	return data
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}

// decimal is a time as PAX writes it: -1.5 is half a second before -1.
func decimal(t listing.Time) string {
	sign, sec, nsec := "", t.Sec, t.Nsec
	if sec < 0 {
		sign, sec = "-", -sec
		if nsec != 0 {
			sec, nsec = sec-1, 1e9-nsec
		}
	}
	if nsec == 0 {
		return fmt.Sprintf("%s%d", sign, sec)
	}
	return strings.TrimRight(fmt.Sprintf("%s%d.%09d", sign, sec, nsec), "0")
}

// encodeRecords writes records, whose length counts its own digits.
func encodeRecords(records []Record) []byte {
	var b []byte
	for _, r := range records {
		rest := " " + r.Key + "=" + r.Value + "\n"
		n := len(rest)
		for len(fmt.Sprint(n))+len(rest) != n {
			n = len(fmt.Sprint(n)) + len(rest)
		}
		b = append(b, fmt.Sprint(n)+rest...)
	}
	return b
}
