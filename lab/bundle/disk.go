package bundle

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
)

// ExpandDisk writes the guest's disk to path, which must not exist yet, with
// holes where it is zero, and checks it against the manifest. After an error
// nothing is left at path.
func (b *Bundle) ExpandDisk(ctx context.Context, path string) (err error) {
	in, _, err := openRegular(b.Path(b.Manifest.Disk.Member))
	if err != nil {
		return fmt.Errorf("expand disk: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("expand disk: %w", err)
	}
	defer func() {
		if closed := out.Close(); err == nil && closed != nil {
			err = fmt.Errorf("expand disk: %w", closed)
		}
		if err != nil {
			os.Remove(path)
		}
	}()
	reason, err := expand(contextReader{ctx, in}, out, b.Manifest.Disk)
	if err != nil {
		return fmt.Errorf("expand disk to %s: %w", path, err)
	}
	if reason != "" {
		return &RefusedError{Bundle: b.path, Member: b.Manifest.Disk.Member, Reason: reason}
	}
	return nil
}

// expand decompresses a disk. The reason, when there is one, is what is wrong
// with the compressed disk.
func expand(r io.Reader, out *os.File, d Disk) (reason string, err error) {
	compressed := bufio.NewReaderSize(r, 1<<20)
	z, err := gzip.NewReader(compressed)
	if err != nil {
		return err.Error(), nil
	}
	z.Multistream(false)
	sum := newCounter()
	chunk := make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(z, chunk)
		offset := sum.n
		if sum.Write(chunk[:n]); sum.n > d.Size {
			return fmt.Sprintf("expands to more than %d bytes", d.Size), nil
		}
		if !allZero(chunk[:n]) {
			if _, err := out.WriteAt(chunk[:n], offset); err != nil {
				return "", err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF && sum.n == d.Size {
			break
		}
		if err != nil {
			return err.Error(), nil
		}
	}
	if _, err := compressed.ReadByte(); err != io.EOF {
		return "something follows the compressed disk", nil
	}
	if sum.n != d.Size || "sha256:"+sum.digest() != d.Digest {
		return fmt.Sprintf("expands to %d bytes with the digest sha256:%s, not to %d bytes with %s", sum.n, sum.digest(), d.Size, d.Digest), nil
	}
	return "", out.Truncate(d.Size)
}
