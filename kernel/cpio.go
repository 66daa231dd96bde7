package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
)

const maxCpioName = 4096 // bytes: PATH_MAX

// walkCpio calls visit for each regular file of a cpio archive in the "newc"
// form, as RPM's payloads are (cpio(5), Documentation/driver-api/early-userspace/
// buffer-format.rst): a header of 110 bytes, all numbers eight hexadecimal
// digits, then the name and the content, each padded to four bytes. Of a file
// with several names, only the last one has the content; it is visited by that.
// At most limit bytes are read.
func walkCpio(ctx context.Context, plain io.Reader, limit int64, visit func(name string, r io.Reader) error) error {
	limited := &io.LimitedReader{R: plain, N: limit}
	if err := readCpio(ctx, limited, visit); err != nil {
		return errors.Join(err, tooMuch(limited, limit))
	}
	// Read to its very end, where the checksum is.
	_, err := io.Copy(io.Discard, limited)
	return errors.Join(err, tooMuch(limited, limit))
}

func readCpio(ctx context.Context, r io.Reader, visit func(name string, r io.Reader) error) error {
	for n := 0; ; n++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if n > maxEntries {
			return fmt.Errorf("more than %d entries", maxEntries)
		}
		e, err := readCpioEntry(r)
		if err != nil || e.name == "TRAILER!!!" {
			return err
		}
		content := &io.LimitedReader{R: r, N: e.size}
		const modeType, modeRegular = 0o170000, 0o100000
		if e.mode&modeType == modeRegular && (e.size > 0 || e.links < 2) {
			if err := visit(strings.TrimPrefix(path.Clean("/"+e.name), "/"), content); err != nil {
				return err
			}
		}
		if _, err := io.Copy(io.Discard, content); err != nil {
			return err
		}
		if content.N > 0 {
			return fmt.Errorf("truncated cpio archive: %d bytes of %s are missing", content.N, printable([]byte(e.name)))
		}
		if err := skip(r, -e.size&3); err != nil {
			return fmt.Errorf("truncated cpio archive: %w", err)
		}
	}
}

// cpioEntry is one header of a cpio archive, with the name behind it.
type cpioEntry struct {
	name        string
	mode, links uint64
	size        int64
}

func readCpioEntry(r io.Reader) (cpioEntry, error) {
	const headerLen, fields = 110, 13
	head := make([]byte, headerLen)
	if _, err := io.ReadFull(r, head); err != nil {
		return cpioEntry{}, fmt.Errorf("truncated cpio archive: it ends without its trailer (%w)", err)
	}
	if magic := string(head[:6]); magic != "070701" && magic != "070702" {
		return cpioEntry{}, fmt.Errorf("damaged cpio archive: %q in the place of a header", magic)
	}
	var numbers [fields]uint64
	for i := range numbers {
		n, err := strconv.ParseUint(string(head[6+8*i:14+8*i]), 16, 32)
		if err != nil {
			return cpioEntry{}, fmt.Errorf("damaged cpio archive: a header with %q for a number", head[6+8*i:14+8*i])
		}
		numbers[i] = n
	}
	e := cpioEntry{mode: numbers[1], links: numbers[4], size: int64(numbers[6])}
	length := numbers[11]
	if length < 1 || length > maxCpioName {
		return cpioEntry{}, fmt.Errorf("damaged cpio archive: a name of %d bytes", length)
	}
	name := make([]byte, length)
	if _, err := io.ReadFull(r, name); err != nil {
		return cpioEntry{}, fmt.Errorf("truncated cpio archive: %w", err)
	}
	e.name = strings.TrimRight(string(name), "\x00")
	if err := skip(r, -int64(headerLen+length)&3); err != nil {
		return cpioEntry{}, fmt.Errorf("truncated cpio archive: %w", err)
	}
	return e, nil
}

func skip(r io.Reader, n int64) error {
	_, err := io.CopyN(io.Discard, r, n)
	return err
}
