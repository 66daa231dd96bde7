package disk

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// writeBack writes to f and has the kernel begin early with what fsync(2) would
// wait for at the end: the disk works while the next blocks come.
func writeBack(f *os.File) io.WriterAt { return &earlyWriter{f: f} }

type earlyWriter struct {
	f    *os.File
	done int64 // bytes from the start of the file that are on their way
}

func (w *earlyWriter) WriteAt(b []byte, off int64) (int, error) {
	n, err := w.f.WriteAt(b, off)
	const step = 16 << 20
	if end := off + int64(n); end >= w.done+step {
		// A hint (sync_file_range(2)): where it fails, the sync at the end does all.
		_ = unix.SyncFileRange(int(w.f.Fd()), w.done, end-w.done, unix.SYNC_FILE_RANGE_WRITE)
		w.done = end
	}
	return n, err
}
