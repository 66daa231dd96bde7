package ext4

import (
	"archive/tar"
	"io"
	"testing"
)

// BenchmarkZeros adds a file of 8 GiB without data, BenchmarkData one of 256 MiB
// without holes; what makes the bytes is part of it.
func BenchmarkZeros(b *testing.B) { benchmarkFile(b, 8<<30, fillReader(0)) }

func BenchmarkData(b *testing.B) { benchmarkFile(b, 256<<20, fillReader(1)) }

func benchmarkFile(b *testing.B, size int64, r io.Reader) {
	b.SetBytes(size)
	for b.Loop() {
		w, err := NewWriter(discard{}, 0, testOptions)
		if err != nil {
			b.Fatal(err)
		}
		if err := w.Add(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: size}, r); err != nil {
			b.Fatal(err)
		}
	}
}
