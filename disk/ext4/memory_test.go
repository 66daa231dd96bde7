package ext4

import (
	"archive/tar"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// heapWatch is a disk that looks at every write how much memory is in use.
type heapWatch struct{ most uint64 }

func (h *heapWatch) WriteAt(b []byte, _ int64) (int, error) {
	h.most = max(h.most, heapInUse())
	return len(b), nil
}

// heapInUse is the memory in bytes that garbage collection leaves.
func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestMemory adds 50,000 files, spread out and in one directory: what is in use
// stays below half of 64 MiB at all times, so that with as much garbage, which is
// when Go collects, it is not more.
func TestMemory(t *testing.T) {
	const files = 50_000
	for _, inDir := range []int{100, files} {
		before := heapInUse()
		watch := &heapWatch{}
		w, err := NewWriter(watch, 0, testOptions)
		if err != nil {
			t.Fatal(err)
		}
		for i := range files {
			name := fmt.Sprintf("usr/share/%d/file-%d", i/inDir, i)
			if err := w.Add(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 1}, strings.NewReader("x")); err != nil {
				t.Fatal(err)
			}
		}
		kept := heapInUse() - before - bufferSize
		if _, err := w.Close(1 << 30); err != nil {
			t.Fatal(err)
		}
		most := watch.most - before
		t.Logf("%d files, %d in a directory: %d bytes each, at most %.1f MiB in use", files, inDir, kept/files, float64(most)/(1<<20))
		if most > 32<<20 {
			t.Errorf("%d files, %d in a directory: %d bytes in use", files, inDir, most)
		}
	}
}
