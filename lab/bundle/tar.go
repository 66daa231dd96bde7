package bundle

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

const (
	manifestName  = "manifest.json"
	sumsName      = "SHA256SUMS"
	signatureName = "SHA256SUMS.sig"
	blockSize     = 512
)

// header gives the 512 bytes that stand before a member in the tar. For what
// passed check it cannot fail.
func header(name string, mode, size int64) ([]byte, error) {
	var b bytes.Buffer
	err := tar.NewWriter(&b).WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg,
		Name:     name,
		Mode:     mode,
		Size:     size,
		ModTime:  time.Unix(0, 0),
		Format:   tar.FormatUSTAR,
	})
	if err != nil {
		return nil, fmt.Errorf("describe member %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// padding is how many zero bytes follow a member of that size.
func padding(size int64) int64 { return -size & (blockSize - 1) }

// encode gives the one JSON form of a manifest.
func encode(m Manifest) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(m); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return b.Bytes(), nil
}

// decode reads a manifest and checks it. Errors are about the content.
func decode(data []byte) (Manifest, error) {
	var m Manifest
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return Manifest{}, err
	}
	// A field twice, a name in other case, a number written another way, text
	// that is not UTF-8, anything after the end: all of it comes out otherwise.
	again, err := encode(m)
	if err != nil {
		return Manifest{}, err
	}
	if i := differs(again, data); i >= 0 {
		return Manifest{}, fmt.Errorf("not in the form that lab writes, from byte %d on", i)
	}
	return m, m.check()
}

// differs gives the index of the first byte in which a and b differ, or -1.
func differs(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	if len(a) == len(b) {
		return -1
	}
	return n
}

// sums gives the content of SHA256SUMS, in the format of sha256sum(1).
func sums(manifest []byte, members []Member) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s  %s\n", digest(manifest), manifestName)
	for _, m := range members {
		fmt.Fprintf(&b, "%s  %s\n", m.SHA256, m.Name)
	}
	return b.Bytes()
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// oddity says in words how a header differs from the one that should be there.
func oddity(block, want []byte, name string) string {
	if allZero(block) {
		return fmt.Sprintf("the tar ends before %s", name)
	}
	if !bytes.HasPrefix(block[257:], []byte("ustar")) {
		return fmt.Sprintf("where %s should be there is no tar header", name)
	}
	if kind, ok := kinds[block[156]]; ok {
		return fmt.Sprintf("the tar has %s where %s should be", kind, name)
	}
	switch found := entryName(block); found {
	case name:
	case "":
		return fmt.Sprintf("the tar header of %s is damaged", name)
	default:
		return fmt.Sprintf("the tar has %.120q where %s should be", found, name)
	}
	var odd []string
	field := func(what string, from, to int) {
		if !bytes.Equal(block[from:to], want[from:to]) {
			odd = append(odd, what)
		}
	}
	// The fields of a USTAR header: pax(1), "ustar Header Block".
	field("type", 156, 157)
	field("mode", 100, 108)
	field("owner", 108, 124)
	field("size", 124, 136)
	field("time", 136, 148)
	field("link name", 157, 257)
	field("format", 257, 265)
	field("owner's name", 265, 329)
	field("device number", 329, 345)
	field("name prefix", 345, 500)
	field("padding", 500, 512)
	if len(odd) == 0 {
		odd = []string{"encoding"}
	}
	return fmt.Sprintf("the tar header of %s is not the one a bundle has: %s", name, strings.Join(odd, ", "))
}

// entryName gives the name in a tar header, or "" when it is no sound header.
func entryName(block []byte) string {
	h, err := tar.NewReader(bytes.NewReader(block)).Next()
	if err != nil {
		return ""
	}
	return h.Name
}

func allZero(p []byte) bool { return len(bytes.TrimLeft(p, "\x00")) == 0 }

// kinds of tar entries that are never in a bundle, by their type flag.
var kinds = map[byte]string{
	tar.TypeLink:          "a hard link",
	tar.TypeSymlink:       "a symbolic link",
	tar.TypeChar:          "a character device",
	tar.TypeBlock:         "a block device",
	tar.TypeDir:           "a directory",
	tar.TypeFifo:          "a FIFO",
	tar.TypeCont:          "a contiguous file",
	tar.TypeXHeader:       "a PAX extended header",
	tar.TypeXGlobalHeader: "a PAX global header",
	tar.TypeGNUSparse:     "a GNU sparse file",
	tar.TypeGNULongName:   "a GNU long name",
	tar.TypeGNULongLink:   "a GNU long link name",
}
