package bundle

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/klauspost/compress/gzip"
)

// Expand writes what a compressed member was, the guest's disk or an initramfs, to
// path, which must not exist yet, with holes where it is zero, and checks it against
// the manifest. After an error nothing is left at path.
func (b *Bundle) Expand(ctx context.Context, member, path string) (err error) {
	defer func() {
		if refused := (*RefusedError)(nil); err != nil && !errors.As(err, &refused) {
			err = fmt.Errorf("expand %s to %s: %w", member, path, err)
		}
	}()
	in, err := openRegular(b.Path(member))
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if closed := out.Close(); err == nil && closed != nil {
			err = closed
		}
		if err != nil {
			os.Remove(path)
		}
	}()
	reason, err := expand(contextReader{ctx, in}, out, b.Manifest.compressed()[member])
	var system *fs.PathError
	switch {
	case reason == nil && err == nil:
		return nil
	case err != nil || ctx.Err() != nil || errors.As(reason, &system):
		return errors.Join(err, reason)
	}
	return &RefusedError{Bundle: b.path, Member: member, Reason: reason.Error()}
}

// expand decompresses a member. The reason, when there is one, is what is wrong
// with what it reads; err is about what it writes.
func expand(r io.Reader, out *os.File, want Compressed) (reason, err error) {
	compressed := bufio.NewReaderSize(r, 1<<20)
	z, reason := gzip.NewReader(compressed)
	if reason != nil {
		return reason, nil
	}
	z.Multistream(false)
	sum := newCounter()
	chunk := make([]byte, 64<<10)
	for !errors.Is(reason, io.EOF) {
		var n int
		n, reason = z.Read(chunk)
		offset := sum.n
		_, _ = sum.Write(chunk[:n]) // a hash takes everything
		switch {
		case reason != nil && !errors.Is(reason, io.EOF):
			return reason, nil
		case sum.n > want.Size:
			return fmt.Errorf("expands to more than %d bytes", want.Size), nil
		case allZero(chunk[:n]):
			continue
		}
		if _, err := out.WriteAt(chunk[:n], offset); err != nil {
			return nil, err
		}
	}
	if _, err := compressed.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.New("something follows what is compressed"), nil
	}
	if sum.n != want.Size || "sha256:"+sum.digest() != want.Digest {
		return fmt.Errorf("expands to %d bytes with the digest sha256:%s, not to %d bytes with %s", sum.n, sum.digest(), want.Size, want.Digest), nil
	}
	return nil, out.Truncate(want.Size)
}
