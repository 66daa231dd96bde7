package kernel

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// Where a bzImage says where its compressed vmlinux is: boot protocol 2.08,
// Documentation/arch/x86/boot.rst.
const (
	offPayload       = 0x248 // u32: offset from the end of the setup code
	offPayloadLength = 0x24c // u32
	payloadProtocol  = 0x0208
	maxUnpacked      = 1 << 30 // bytes of a vmlinux that are looked through
)

// ErrNoConfig is returned for an image that does not carry its configuration.
var ErrNoConfig = errors.New("it does not carry its configuration (CONFIG_IKCONFIG)")

// EmbeddedConfig returns the .config inside a bzImage or a vmlinux that was
// built with CONFIG_IKCONFIG=y, as scripts/extract-ikconfig does: gzip between
// two magic words (kernel/configs.c). ErrNoConfig says that there is none.
func EmbeddedConfig(image string) ([]byte, error) {
	f, err := os.Open(image)
	if err != nil {
		return nil, fmt.Errorf("read kernel: %w", err)
	}
	defer f.Close()
	data, err := embeddedConfig(f)
	if err != nil {
		return nil, fmt.Errorf("read configuration in kernel %s: %w", image, err)
	}
	return data, nil
}

func embeddedConfig(r io.ReaderAt) ([]byte, error) {
	if _, err := readBanner(r); err != nil {
		var magic [4]byte
		if _, e := r.ReadAt(magic[:], 0); e != nil || string(magic[:]) != elf.ELFMAG {
			return nil, err // a vmlinux that QEMU cannot boot has a configuration all the same
		}
	}
	vmlinux, err := openVmlinux(r)
	if err != nil {
		return nil, err
	}
	defer vmlinux.Close()
	return findConfig(io.LimitReader(vmlinux, maxUnpacked))
}

// openVmlinux reads the kernel proper in a bzImage; a vmlinux is that itself.
func openVmlinux(r io.ReaderAt) (io.ReadCloser, error) {
	head := make([]byte, offPayloadLength+4)
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, ErrNoConfig
	}
	if string(head[:4]) == elf.ELFMAG {
		return io.NopCloser(io.NewSectionReader(r, 0, maxUnpacked)), nil
	}
	if binary.LittleEndian.Uint16(head[offProtocol:]) < payloadProtocol {
		return nil, errors.New("its boot protocol is too old to tell where the kernel proper is")
	}
	setup := int64(head[offSetupSects])
	if setup == 0 {
		setup = 4
	}
	at := (setup+1)*512 + int64(binary.LittleEndian.Uint32(head[offPayload:]))
	return openPayload(io.NewSectionReader(r, at, int64(binary.LittleEndian.Uint32(head[offPayloadLength:]))))
}

// openPayload undoes what a kernel is compressed with (scripts/Makefile.lib,
// lib/decompress.c). What follows the compressed bytes, the size as a rule, is
// for the reader not to come upon.
func openPayload(r io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	magic, _ := in.Peek(6)
	begins := func(s string) bool { return bytes.HasPrefix(magic, []byte(s)) }
	switch {
	case begins("\x1f\x8b"):
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("unpack: %w", err)
		}
		z.Multistream(false)
		return z, nil
	case begins("BZh"):
		return io.NopCloser(bzip2.NewReader(in)), nil
	case begins("\x28\xb5\x2f\xfd"):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, fmt.Errorf("unpack: %w", err)
		}
		return z.IOReadCloser(), nil
	case begins("\x02\x21\x4c\x18"):
		return io.NopCloser(lz4.NewReader(in)), nil
	case begins("\xfd7zXZ\x00"):
		z, err := xz.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("unpack xz: %w (scripts/extract-ikconfig of the kernel's source can)", err)
		}
		return io.NopCloser(z), nil
	case begins("\x5d\x00\x00"):
		z, err := lzma.ReaderConfig{DictCap: 128 << 20}.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("unpack lzma: %w", err)
		}
		return io.NopCloser(z), nil
	case begins("\x89LZO"):
		return nil, errors.New("unpack: it is compressed by lzo, which lab cannot read; scripts/extract-ikconfig of the kernel's source can")
	}
	return nil, errors.New("unpack: its kernel proper is not where its header says")
}

// findConfig looks for the configuration in a vmlinux.
func findConfig(r io.Reader) ([]byte, error) {
	const start = "IKCFG_ST"
	in := bufio.NewReaderSize(r, 1<<20)
	for n := 0; ; n++ {
		buf, err := in.Peek(in.Size())
		// The magic word is in the code that reads it, too, on kernels that were
		// built as a module; gzip's magic follows the real one.
		if i := bytes.Index(buf, []byte(start+"\x1f\x8b\x08")); i >= 0 {
			if _, err := in.Discard(i + len(start)); err != nil {
				return nil, err
			}
			break
		}
		if err != nil {
			if n == 0 && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, fmt.Errorf("unpack: %w", err)
			}
			// Not the end alone: what follows a compressed kernel is not for us.
			return nil, ErrNoConfig
		}
		if _, err := in.Discard(len(buf) - len(start) - 2); err != nil {
			return nil, err
		}
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("unpack configuration: %w", err)
	}
	z.Multistream(false)
	data, err := io.ReadAll(io.LimitReader(z, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("unpack configuration: %w", err)
	}
	if len(data) > maxConfig {
		return nil, fmt.Errorf("unpack configuration: larger than %d bytes", maxConfig)
	}
	return data, nil
}
