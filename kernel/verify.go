package kernel

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// A Verification is the comparison of two builds of one commit, each from
// nothing and in a directory of its own.
type Verification struct {
	Same    bool     `json:"same"`
	Image   string   `json:"image"`             // digest of the first build's bzImage
	Vmlinux string   `json:"vmlinux,omitempty"` // and of its vmlinux
	Differs string   `json:"differs,omitempty"` // the first difference, by file and section
	Failure *Failure `json:"failure,omitempty"` // of a commit that does not build; its log is gone
}

// Verify builds a commit twice and compares bzImage and vmlinux byte for byte.
// The builds know nothing of the cache but its place: they are made below it, and
// removed.
func Verify(ctx context.Context, cache, repo, commit string, o BuildOptions) (Verification, error) {
	v, err := verify(ctx, cache, repo, commit, o)
	if err != nil {
		return Verification{}, fmt.Errorf("verify commit %s: %w", commit, err)
	}
	return v, nil
}

func verify(ctx context.Context, cache, repo, commit string, o BuildOptions) (v Verification, err error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return v, err
	}
	dir, err := os.MkdirTemp(cache, "verify-")
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o.Recompile = true // it is the compiler that is to be seen
	var images, vmlinuxes [2]string
	// Paths of different lengths: one that gets into a kernel shows.
	for i, place := range []string{"a", "another/place"} {
		t, err := OpenTree(ctx, filepath.Join(dir, place), repo)
		if err != nil {
			return v, err
		}
		defer t.Close()
		k, failure, _, err := t.Build(ctx, commit, o)
		if err != nil {
			return v, err
		}
		if failure != nil {
			failure.Log = ""
			return Verification{Failure: failure}, nil
		}
		images[i], vmlinuxes[i] = k.Image, filepath.Join(t.base, "src", "vmlinux")
		if i == 0 {
			v.Image = k.Digest
		}
	}
	if v.Vmlinux, err = digestFile(vmlinuxes[0]); errors.Is(err, os.ErrNotExist) {
		v.Vmlinux, err = "", nil
	}
	if err != nil {
		return v, err
	}
	// vmlinux first: a bzImage is it, compressed, and tells less.
	if v.Vmlinux != "" {
		if v.Differs, err = firstDifference(vmlinuxes[0], vmlinuxes[1]); err != nil || v.Differs != "" {
			v.Differs = "vmlinux: " + v.Differs
			return v, err
		}
	}
	if v.Differs, err = firstDifference(images[0], images[1]); err != nil || v.Differs != "" {
		v.Differs = "bzImage: " + v.Differs
		return v, err
	}
	v.Same = true
	return v, nil
}

// firstDifference says where two files differ first, "" when they are the same.
func firstDifference(one, two string) (string, error) {
	a, err := os.Open(one)
	if err != nil {
		return "", err
	}
	defer a.Close()
	b, err := os.Open(two)
	if err != nil {
		return "", err
	}
	defer b.Close()
	at, err := differAt(a, b)
	if err != nil || at < 0 {
		return "", err
	}
	return fmt.Sprintf("byte %d, in %s", at, sectionAt(a, at)), nil
}

// differAt gives the offset of the first byte in which two streams differ, which
// may be the end of one of them, and -1 for none.
func differAt(a, b io.Reader) (int64, error) {
	const size = 1 << 16
	x, y := make([]byte, size), make([]byte, size)
	for at := int64(0); ; {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		for i := range min(n, m) {
			if x[i] != y[i] {
				return at + int64(i), nil
			}
		}
		if n != m {
			return at + int64(min(n, m)), nil
		}
		at += int64(n)
		for _, err := range []error{errA, errB} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return 0, err
			}
		}
		if errA != nil {
			return -1, nil
		}
	}
}

// sectionAt names what is at that offset of a vmlinux or a bzImage.
func sectionAt(r io.ReaderAt, at int64) string {
	magic := make([]byte, len(elf.ELFMAG))
	if _, err := r.ReadAt(magic, 0); err == nil && bytes.Equal(magic, []byte(elf.ELFMAG)) {
		if f, err := elf.NewFile(r); err == nil {
			for _, s := range f.Sections {
				if s.Type != elf.SHT_NOBITS && s.Type != elf.SHT_NULL && at >= int64(s.Offset) && at < int64(s.Offset+s.FileSize) {
					return "section " + s.Name
				}
			}
		}
		return "the ELF headers"
	}
	head := make([]byte, headerSize)
	if _, err := r.ReadAt(head, 0); err == nil && at < (int64(head[offSetupSects])+1)*512 {
		return "the setup code"
	}
	return "the compressed kernel"
}
