package oci

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

const (
	blobAttempts  = 5        // in a row that bring nothing new
	leastProgress = 64 << 10 // bytes that an attempt has to bring to count as one that did
	waitForLock   = 100 * time.Millisecond
)

// download stores a blob of a registry. When it breaks off it is continued
// where it stopped, at once and for as long as attempts bring something new;
// later, by the next pull, when they do not.
func (p *pull) download(ctx context.Context, repo *repository, d v1.Descriptor) error {
	f, err := p.openPartial(ctx, d)
	if f == nil || err != nil {
		return err
	}
	defer f.close()
	if f.size > 0 {
		p.notice(fmt.Sprintf("blob %.19s: going on at %.1f of %.1f MiB, which an earlier pull fetched", d.Digest, mib(f.size), mib(d.Size)))
	}
	for furthest, idle := f.size, 0; ; {
		err := p.attempt(ctx, repo, f)
		if err == nil || ctx.Err() != nil || !again(err) {
			return err
		}
		if idle++; f.size >= furthest+leastProgress {
			furthest, idle = f.size, 0
		}
		if idle == blobAttempts {
			return err
		}
		if err := sleep(ctx, p.pause()<<idle); err != nil {
			return err
		}
	}
}

// attempt asks for what is missing and stores the blob when it is whole.
func (p *pull) attempt(ctx context.Context, repo *repository, f *partialBlob) error {
	if f.size < f.want.Size {
		if err := p.receive(ctx, repo, f); err != nil {
			return err
		}
	}
	err := f.commit()
	if errors.As(err, new(*wrongBytesError)) {
		if err := f.restart(); err != nil {
			return err
		}
		p.left(f.want.Digest, f.want.Size)
	}
	return err
}

// receive appends to a partial blob what one request brings.
func (p *pull) receive(ctx context.Context, repo *repository, f *partialBlob) error {
	rc, start, err := repo.blob(ctx, f.want, f.size)
	if err != nil {
		return err
	}
	defer rc.Close()
	if start != f.size {
		if err := f.restart(); err != nil {
			return err
		}
		p.left(f.want.Digest, f.want.Size)
	}
	f.answers++
	buf := make([]byte, 256<<10)
	for {
		n, err := rc.Read(buf)
		if int64(n) > f.want.Size-f.size {
			// Its digest cannot be the one announced: nothing to go on with.
			if err := f.restart(); err != nil {
				return err
			}
			return longer(f.want)
		}
		if err := f.write(buf[:n]); err != nil {
			return err
		}
		p.arrived(f.want.Digest, int64(n))
		switch {
		case errors.Is(err, io.EOF) && f.size < f.want.Size, errors.Is(err, io.ErrUnexpectedEOF):
			return &truncatedError{f.want.Digest, f.size, f.want.Size}
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return &brokenError{f.want.Digest, f.size, f.want.Size, err}
		}
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

func longer(d v1.Descriptor) error {
	return fmt.Errorf("blob %s is longer than the %d bytes announced", d.Digest, d.Size)
}

// brokenError is a download that did not come to its end.
type brokenError struct {
	digest    v1.Hash
	got, want int64
	err       error
}

func (e *brokenError) Error() string {
	return fmt.Sprintf("blob %s broke off after %d of %d bytes: %v", e.digest, e.got, e.want, e.err)
}

func (e *brokenError) Unwrap() error { return e.err }

// wrongBytesError is a blob of other bytes than its digest's.
type wrongBytesError struct {
	want, got v1.Hash
	patched   bool // they came from several answers, which may not have fit
}

func (e *wrongBytesError) Error() string {
	return fmt.Sprintf("blob %s has the digest %s: the bytes are not those asked for", e.want, e.got)
}

// partialBlob is a blob on its way into the store: a file in tmp/ that is named for
// the blob, locked by whoever writes it, and stays when he is interrupted.
type partialBlob struct {
	store   *Store
	want    v1.Descriptor
	file    *os.File
	hash    hash.Hash
	size    int64 // what is in the file and the hash; never more than want.Size
	answers int   // how many answers its bytes come from; what an earlier pull left counts as two
	stored  bool  // it is a blob now
}

func (s *Store) partialPath(h v1.Hash) string {
	return filepath.Join(s.dir, "tmp", "partial-"+h.Algorithm+"-"+h.Hex)
}

// partialSize is how much of a blob an earlier pull left behind.
func (s *Store) partialSize(d v1.Descriptor) int64 {
	info, err := os.Lstat(s.partialPath(d.Digest))
	if err != nil || !info.Mode().IsRegular() || info.Size() > d.Size {
		return 0
	}
	return info.Size()
}

// openPartial takes hold of a blob's file and hashes what is there. While
// somebody else writes it, it waits; nil says that the blob is in the store by
// then.
func (p *pull) openPartial(ctx context.Context, d v1.Descriptor) (*partialBlob, error) {
	for told := false; ; {
		f, err := p.store.lockPartial(d)
		if err == nil {
			if p.store.has(d) {
				f.close()
				p.left(d.Digest, 0)
				return nil, nil
			}
			if err := f.load(ctx); err != nil {
				f.close()
				return nil, err
			}
			p.left(d.Digest, d.Size-f.size)
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("open partial blob: %w", err)
		}
		if !told {
			p.notice(fmt.Sprintf("blob %.19s: another lab is fetching it; waiting", d.Digest))
			told = true
		}
		if err := sleep(ctx, waitForLock); err != nil {
			return nil, err
		}
	}
}

// lockPartial opens and locks a blob's file. EWOULDBLOCK says that it is
// somebody else's.
func (s *Store) lockPartial(d v1.Descriptor) (*partialBlob, error) {
	h, err := v1.Hasher(d.Digest.Algorithm)
	if err != nil {
		return nil, err
	}
	path := s.partialPath(d.Digest)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // somebody may have emptied the cache
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return nil, err
	}
	if err := lockNamed(file, path); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &partialBlob{store: s, want: d, file: file, hash: h}, nil
}

// lockNamed locks an open file, which must still be what its path names: who
// had it locked before may have made a blob of it, or removed it.
func lockNamed(file *os.File, path string) error {
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	have, err := file.Stat()
	if err != nil {
		return err
	}
	named, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && !os.SameFile(have, named):
		return unix.EWOULDBLOCK // the next attempt opens the right one
	case err == nil && !have.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file; remove it", path)
	}
	return err
}

// load hashes what an earlier pull left.
func (f *partialBlob) load(ctx context.Context) error {
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() > f.want.Size {
		return f.restart()
	}
	buf := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := f.file.Read(buf)
		f.hash.Write(buf[:n])
		f.size += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if f.size > 0 {
		f.answers = 2
	}
	return nil
}

func (f *partialBlob) write(b []byte) error {
	n, err := f.file.Write(b)
	f.hash.Write(b[:n])
	f.size += int64(n)
	return err
}

// restart forgets what there is.
func (f *partialBlob) restart() error {
	f.hash.Reset()
	f.size, f.answers = 0, 0
	if _, err := f.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return f.file.Truncate(0)
}

// again says whether another attempt may help. Wrong bytes are final when all
// are of one answer.
func again(err error) bool {
	var wrong *wrongBytesError
	var limit *rateLimitError
	switch {
	case errors.As(err, &wrong):
		return wrong.patched
	case errors.As(err, &limit):
		return false
	}
	return errors.As(err, new(*truncatedError)) || errors.As(err, new(*brokenError)) || errors.Is(err, errBroke) || unreachable(err)
}

// commit makes the file a blob, if it is what it should be.
func (f *partialBlob) commit() error {
	got := v1.Hash{Algorithm: f.want.Digest.Algorithm, Hex: hex.EncodeToString(f.hash.Sum(nil))}
	if got != f.want.Digest {
		return &wrongBytesError{f.want.Digest, got, f.answers > 1}
	}
	if err := f.file.Sync(); err != nil {
		return err
	}
	path := f.store.blobPath(got)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Rename(f.file.Name(), path); err != nil {
		return err
	}
	f.stored = true
	return nil
}

// close lets go of the file, which stays for the next pull when it holds
// something.
func (f *partialBlob) close() {
	if f.size == 0 && !f.stored {
		os.Remove(f.file.Name())
	}
	f.file.Close()
}
