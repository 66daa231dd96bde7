package kernel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
)

// An RPM package, of versions 3 and 4 of the format: a lead of 96 bytes, a
// header with signatures, padded to eight bytes, the header with what the
// package is, and the payload, a compressed cpio archive
// (docs/manual/format_v4.md in rpm's sources).
const (
	rpmMagic  = "\xed\xab\xee\xdb"
	rpmLead   = 96
	rpmHeader = "\x8e\xad\xe8\x01\x00\x00\x00\x00"
)

// Limits on a header. rpm itself takes 65,535 entries and 256 MiB
// (lib/header.c); a kernel's package has a few MiB.
const (
	maxRPMEntries = 0xffff
	maxRPMData    = 64 << 20
)

// Tags of the header (include/rpm/rpmtag.h).
const (
	rpmName              = 1000
	rpmVersion           = 1001
	rpmRelease           = 1002
	rpmEpoch             = 1003
	rpmRequires          = 1049
	rpmSourcePackage     = 1106
	rpmDirIndexes        = 1116
	rpmBasenames         = 1117
	rpmDirnames          = 1118
	rpmPayloadFormat     = 1124
	rpmPayloadCompressor = 1125
	rpmPayloadDigest     = 5092
	rpmPayloadDigestAlgo = 5093
)

// Types of a tag's values.
const (
	rpmInt32       = 4
	rpmString      = 6
	rpmStringArray = 8
	rpmI18N        = 9
)

// rpm is an RPM package.
type rpm struct {
	header  rpmTags
	payload *io.SectionReader
}

// openRPM reads the package's headers and checks the payload against the
// digest that the header has of it, as all of this decade's do.
func openRPM(r io.ReaderAt, size int64) (rpm, error) {
	lead := make([]byte, rpmLead)
	if n, err := r.ReadAt(lead, 0); n < len(lead) {
		return rpm{}, fmt.Errorf("truncated RPM package: it ends inside its lead (%w)", err)
	}
	if string(lead[:4]) != rpmMagic || lead[4] != 3 && lead[4] != 4 {
		return rpm{}, fmt.Errorf("an RPM package of format %d, not 3 or 4", lead[4])
	}
	_, at, err := readRPMTags(r, rpmLead, size)
	if err != nil {
		return rpm{}, fmt.Errorf("read signatures: %w", err)
	}
	tags, at, err := readRPMTags(r, (at+7)&^7, size)
	if err != nil {
		return rpm{}, fmt.Errorf("read header: %w", err)
	}
	p := rpm{tags, io.NewSectionReader(r, at, size-at)}
	if p.header.text(rpmName) == "" {
		return rpm{}, errors.New("damaged RPM package: the header names no package")
	}
	if format := p.header.text(rpmPayloadFormat); format != "" && format != "cpio" {
		return rpm{}, fmt.Errorf("an RPM package with a payload of the format %q, not cpio", format)
	}
	return p, p.checkPayload()
}

func (p rpm) checkPayload() error {
	want, algorithm := p.header.texts(rpmPayloadDigest), p.header.ints(rpmPayloadDigestAlgo)
	const sha256Algorithm = 8 // RFC 4880, 9.4
	if len(want) == 0 || len(algorithm) == 0 || algorithm[0] != sha256Algorithm {
		return nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(p.payload, 0, p.payload.Size())); err != nil {
		return err
	}
	if hex.EncodeToString(h.Sum(nil)) != want[0] {
		return errors.New("damaged RPM package: its payload does not have the digest that its header says")
	}
	return nil
}

// contents are the package's files.
func (p rpm) contents() contents {
	if p.payload == nil {
		return contents{}
	}
	version := p.header.text(rpmVersion)
	if release := p.header.text(rpmRelease); release != "" {
		version += "-" + release
	}
	if epoch := p.header.ints(rpmEpoch); len(epoch) > 0 && epoch[0] != 0 {
		version = strconv.FormatUint(uint64(epoch[0]), 10) + ":" + version
	}
	return contents{
		kind: "package", name: p.header.text(rpmName), version: version, depends: p.kernelDepends(), paths: p.paths(),
		walk: func(ctx context.Context, visit func(string, io.Reader) error) error {
			if err := p.walk(ctx, visit); err != nil {
				return fmt.Errorf("read payload: %w", err)
			}
			return nil
		},
	}
}

func (p rpm) walk(ctx context.Context, visit func(string, io.Reader) error) error {
	if slices.Contains(p.header.tags(), rpmSourcePackage) {
		return errors.New("a source package: give the binary package built of it")
	}
	compressor := p.header.text(rpmPayloadCompressor)
	ending, known := map[string]string{"": ".gz", "gzip": ".gz", "bzip2": ".bz2", "xz": ".xz", "zstd": ".zst"}[compressor]
	if !known {
		return fmt.Errorf("it is compressed with %s, which is not supported: gzip, bzip2, xz and zstd are", compressor)
	}
	plain, err := decompress("payload.cpio"+ending, io.NewSectionReader(p.payload, 0, p.payload.Size()))
	if err != nil {
		return err
	}
	defer plain.Close()
	return walkCpio(ctx, plain, maxData, visit)
}

// paths are the files that the header lists, without the slash they begin with.
func (p rpm) paths() []string {
	bases, dirs := p.header.texts(rpmBasenames), p.header.texts(rpmDirnames)
	paths := []string{}
	for i, n := range p.header.ints(rpmDirIndexes) {
		if i < len(bases) && uint64(n) < uint64(len(dirs)) {
			paths = append(paths, strings.TrimPrefix(path.Clean("/"+dirs[n]+bases[i]), "/"))
		}
	}
	if len(paths) == 0 {
		return nil // a package of old lists them otherwise: the payload tells
	}
	return paths
}

// kernelDepends names the packages that the package requires and that may hold
// a kernel.
func (p rpm) kernelDepends() []string {
	var names []string
	for _, name := range p.header.texts(rpmRequires) {
		if strings.HasPrefix(name, "kernel") && strings.HasSuffix(name, "-core") || name == "kernel-default" {
			names = append(names, name)
		}
	}
	return names
}

// rpmTags is a header: an index of entries of 16 bytes, and the data that they
// point into.
type rpmTags struct{ index, data []byte }

// readRPMTags reads the header at an offset and says where it ends.
func readRPMTags(r io.ReaderAt, at, size int64) (rpmTags, int64, error) {
	const introLen, entryLen = 16, 16
	intro := make([]byte, introLen)
	if n, _ := r.ReadAt(intro, at); n < len(intro) {
		return rpmTags{}, 0, fmt.Errorf("truncated RPM package: no header at byte %d", at)
	}
	// The four bytes behind the magic are reserved.
	if string(intro[:4]) != rpmHeader[:4] {
		return rpmTags{}, 0, fmt.Errorf("damaged RPM package: no header at byte %d", at)
	}
	entries, length := binary.BigEndian.Uint32(intro[8:]), binary.BigEndian.Uint32(intro[12:])
	if entries > maxRPMEntries || length > maxRPMData {
		return rpmTags{}, 0, fmt.Errorf("RPM header of %d entries and %d bytes: at most %d and %d are accepted", entries, length, maxRPMEntries, maxRPMData)
	}
	at += introLen
	whole := int64(entries)*entryLen + int64(length)
	if whole > size-at {
		return rpmTags{}, 0, fmt.Errorf("truncated RPM package: %d bytes of a header are missing", whole-(size-at))
	}
	data := make([]byte, whole)
	if _, err := r.ReadAt(data, at); err != nil && !errors.Is(err, io.EOF) {
		return rpmTags{}, 0, err
	}
	split := int(entries) * entryLen
	return rpmTags{data[:split], data[split:]}, at + whole, nil
}

func (t rpmTags) tags() []uint32 {
	var tags []uint32
	for e := range slices.Chunk(t.index, 16) {
		tags = append(tags, binary.BigEndian.Uint32(e))
	}
	return tags
}

// find gives a tag's type, number of values and data; what does not fit the
// data, or is more than any package has, gives nothing.
func (t rpmTags) find(tag uint32) (kind uint32, count int, data []byte) {
	for e := range slices.Chunk(t.index, 16) {
		if binary.BigEndian.Uint32(e) != tag {
			continue
		}
		offset, n := binary.BigEndian.Uint32(e[8:]), binary.BigEndian.Uint32(e[12:])
		if uint64(offset) > uint64(len(t.data)) || n > maxEntries {
			return 0, 0, nil
		}
		return binary.BigEndian.Uint32(e[4:]), int(n), t.data[offset:]
	}
	return 0, 0, nil
}

// texts are the values of a tag that is text; each ends in a zero byte.
func (t rpmTags) texts(tag uint32) []string {
	kind, count, data := t.find(tag)
	if kind != rpmString && kind != rpmStringArray && kind != rpmI18N {
		return nil
	}
	var texts []string
	for range count {
		text, rest, ok := bytes.Cut(data, []byte{0})
		if !ok {
			return texts
		}
		texts, data = append(texts, printable(text)), rest
	}
	return texts
}

func (t rpmTags) text(tag uint32) string {
	if texts := t.texts(tag); len(texts) > 0 {
		return texts[0]
	}
	return ""
}

func (t rpmTags) ints(tag uint32) []uint32 {
	kind, count, data := t.find(tag)
	if kind != rpmInt32 {
		return nil
	}
	var ints []uint32
	for range count {
		if len(data) < 4 {
			return ints
		}
		ints, data = append(ints, binary.BigEndian.Uint32(data)), data[4:]
	}
	return ints
}
