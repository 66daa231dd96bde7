package kernel

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"lab/kernel/kconfig"
)

const embedded = "#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86 6.1.192 Kernel Configuration\n#\nCONFIG_64BIT=y\nCONFIG_EXT4_FS=m\n"

// ikVmlinux is what a vmlinux looks like around its configuration: the magic
// words are in its code as well, so many times.
func ikVmlinux(t testing.TB, code int) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01\x00" + strings.Repeat("IKCFG_ST, code. ", code))
	b.WriteString("IKCFG_ST")
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, embedded); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	b.WriteString("IKCFG_ED" + strings.Repeat("data", 100))
	return b.Bytes()
}

// ikImage is a bzImage around a compressed vmlinux, with its size behind it.
func ikImage(payload []byte) []byte {
	b := fakeHeader("6.1.192-fake")
	binary.LittleEndian.PutUint32(b[offPayload:], 100)
	binary.LittleEndian.PutUint32(b[offPayloadLength:], uint32(len(payload))+4)
	return slices.Concat(b, make([]byte, 100), payload, []byte{1, 2, 3, 4}, make([]byte, 500))
}

func pressed(t testing.TB, data []byte, open func(io.Writer) (io.WriteCloser, error)) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := open(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func ikImages(t testing.TB, code int) map[string][]byte {
	t.Helper()
	return map[string][]byte{
		"gzip": ikImage(pressed(t, ikVmlinux(t, code), func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })),
		"zstd": ikImage(pressed(t, ikVmlinux(t, code), func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) })),
		"xz":   ikImage(pressed(t, ikVmlinux(t, code), func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) })),
		"lzma": ikImage(pressed(t, ikVmlinux(t, code), func(w io.Writer) (io.WriteCloser, error) { return lzma.NewWriter(w) })),
		"lz4": ikImage(pressed(t, ikVmlinux(t, code), func(w io.Writer) (io.WriteCloser, error) {
			z := lz4.NewWriter(w)
			return z, z.Apply(lz4.LegacyOption(true))
		})),
		"vmlinux": ikVmlinux(t, code),
	}
}

func TestEmbeddedConfig(t *testing.T) {
	for name, image := range ikImages(t, 1<<16) {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, image, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := EmbeddedConfig(path)
		if err != nil || string(got) != embedded {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		c, err := CheckFile(t.Context(), t.TempDir(), path)
		if err != nil || c.Kind != "image" || !strings.HasPrefix(c.Release, "6.1.192") && name != "vmlinux" {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
		if lacks := c.Lacking(kconfig.Required); !slices.ContainsFunc(lacks, func(f kconfig.Finding) bool { return f.Symbol == "EXT4_FS" && f.State == kconfig.Unloadable }) {
			t.Errorf("%s: an image brings no modules, and ext4 is one: %v", name, lacks)
		}
	}

	gone := ikImage(pressed(t, bytes.Repeat([]byte("no configuration"), 1<<17), func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }))
	if _, err := embeddedConfig(bytes.NewReader(gone)); !errors.Is(err, ErrNoConfig) {
		t.Errorf("without one: %v", err)
	}
	for name, payload := range map[string]string{"lzo": "\x89LZO\x00\r\n", "nothing": "known", "gzip": "\x1f\x8b\x08 damaged"} {
		if _, err := embeddedConfig(bytes.NewReader(ikImage([]byte(payload)))); err == nil || !strings.Contains(err.Error(), "unpack") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// A kernel that carries its configuration is judged by it before a boot.
func TestLacksByEmbeddedConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bzImage")
	if err := os.WriteFile(path, ikImages(t, 1)["lz4"], 0o644); err != nil {
		t.Fatal(err)
	}
	k, err := FromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lacks, err := lacking(k)
	if err != nil || !slices.ContainsFunc(lacks, func(s string) bool { return strings.Contains(s, "CONFIG_BLK_DEV_INITRD is not set") }) {
		t.Errorf("it lacks %q, %v", lacks, err)
	}
}

func TestCheckFile(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"config":    embedded,
		"config.gz": string(pressed(t, []byte(embedded), func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := CheckFile(t.Context(), dir, path)
		if err != nil || c.Kind != "configuration" || c.Release != "6.1.192" {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	for text, want := range map[string]string{"": "it configures nothing", "#!/bin/sh\n\n\n\necho\n": "line 5", "\x00\x00\x00\x00\x00\x00\x00\x00": "neither a bzImage"} {
		path := filepath.Join(dir, "x")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := CheckFile(t.Context(), dir, path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %s", text, err, want)
		}
	}
}

func FuzzEmbeddedConfig(f *testing.F) {
	for _, image := range ikImages(f, 1) {
		f.Add(image)
	}
	f.Fuzz(func(t *testing.T, image []byte) {
		data, err := embeddedConfig(bytes.NewReader(image))
		if err == nil && len(data) > maxConfig {
			t.Errorf("%d bytes", len(data))
		}
	})
}
