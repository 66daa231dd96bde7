package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"lab/lab/corpus"
)

func f(name, body string) file { return file{Name: name, Body: body} }
func dir(name string) file     { return file{Name: name, Header: tar.Header{Mode: 0o755}} }
func symlink(name, to string) file {
	return file{Name: name, Link: to, Header: tar.Header{Mode: 0o777}}
}
func hardlink(name, to string) file { return file{Name: name, Link: to, Type: tar.TypeLink} }

func TestFlattenDamage(t *testing.T) {
	plain := tarOf(t, f("a", strings.Repeat("hello ", 1000)))
	gz := gzipped(t, plain)
	flip := func(b []byte, at int) []byte { b = bytes.Clone(b); b[at] ^= 1; return b }
	tests := []struct {
		name          string
		plain, stored []byte
		want          string
	}{
		{"truncated gzip", plain, gz[:len(gz)-20], "truncated"},
		{"truncated zstd", plain, zstded(t, plain)[:40], "truncated"},
		{"truncated tar", plain[:3000], plain[:3000], "truncated"},
		{"garbage behind gzip", plain, append(bytes.Clone(gz), "garbage, more of it"...), "something else behind"},
		{"garbage behind zstd", plain, append(zstded(t, plain), "garbage"...), "something else behind"},
		{"garbage behind the archive", append(bytes.Clone(plain), "garbage"...), append(bytes.Clone(plain), "garbage"...), "behind the end of the archive"},
		{"a second archive behind the first", append(bytes.Clone(plain), plain...), append(bytes.Clone(plain), plain...), "behind the end of the archive"},
		{"another diff id", plain[:len(plain)-512], plain, "diff id is sha256:"},
		{"no tar", []byte(strings.Repeat("not a tar ", 100)), []byte(strings.Repeat("not a tar ", 100)), "not a tar"},
		{"damaged gzip", plain, flip(gz, len(gz)-6), "gunzip: gzip: invalid checksum"},
		{"bzip2", plain, []byte("BZh91AY&SY"), "bzip2"},
		{"xz", plain, xzed(t, plain), "xz"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := flat(t, withLayers(t, layerOf(tt.plain, tt.stored)))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// An image that lies about a blob is found out though nothing vouches for the
// bytes but the descriptor.
func TestFlattenVerifiesBlobs(t *testing.T) {
	plain := tarOf(t, f("a", "A"))
	other := tarOf(t, f("a", "B"))
	l := lying{layerOf(plain, plain), other}
	_, err := flat(t, withLayers(t, l))
	if err == nil || !strings.Contains(err.Error(), "not what its digest") {
		t.Fatalf("error %v", err)
	}
}

type lying struct {
	v1.Layer
	content []byte
}

func (l lying) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.content)), nil
}

func TestFlattenIsDeterministic(t *testing.T) {
	var files []file
	for i := range 300 {
		name := strings.Repeat(string(rune('a'+i%26)), 1+i/26)
		files = append(files, f("some/"+name+"/implied/x", name), hardlink("l"+name, "some/"+name+"/implied/x"))
	}
	img := imageOf(t, tarOf(t, files...), tarOf(t, f("some/b/.wh..wh..opq", ""), f(".wh.la", ""), f("zz/yy/xx", "")))
	var first []byte
	for range 5 {
		r := Flatten(t.Context(), img)
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = got
		}
		if !bytes.Equal(first, got) {
			t.Fatal("two runs differ")
		}
	}
}

func TestFlattenOrderIsTheLayers(t *testing.T) {
	in := []file{dir("z/"), f("z/b", "1"), f("a", "2"), hardlink("m", "a"), f("z/a", "3"), symlink("c", "a")}
	r := Flatten(t.Context(), imageOf(t, tarOf(t, in...)))
	defer r.Close()
	var got []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Name)
	}
	if diff := cmp.Diff([]string{"./", "z/", "z/b", "a", "m", "z/a", "c"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestLimits(t *testing.T) {
	many := []file{}
	for i := range 100 {
		many = append(many, f(strings.Repeat("n", i+1), ""))
	}
	big := tarOf(t, f("zeros", strings.Repeat("\x00", 1<<20)))
	tests := []struct {
		name   string
		img    v1.Image
		limits Limits
		field  string
	}{
		{"bomb", withLayers(t, layerOf(big, gzipped(t, big))), Limits{Bytes: 1 << 19}, "Bytes"},
		{"entries", imageOf(t, tarOf(t, many...)), Limits{Entries: 50}, "Entries"},
		{"implied directories", imageOf(t, tarOf(t, f(strings.Repeat("a/", 100), ""))), Limits{Entries: 50}, "Entries"},
		{"metadata", imageOf(t, tarOf(t, many...)), Limits{Metadata: 1000}, "Metadata"},
		{"sparse", imageOf(t, sparse(1<<40)), Limits{Bytes: 1 << 39}, "Bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := tt.limits.Flatten(t.Context(), tt.img)
			defer r.Close()
			_, err := io.Copy(io.Discard, r)
			var limit *LimitError
			if !errors.As(err, &limit) || limit.Field != tt.field || !strings.Contains(err.Error(), fmt.Sprintf("larger than the limit of %d ", limit.Limit)) {
				t.Fatalf("error %v, want the limit on %s", err, tt.field)
			}
		})
	}
}

func TestFlattenCanBeLeft(t *testing.T) {
	img := imageOf(t, tarOf(t, f("a", strings.Repeat("x", 8<<20))))
	r := Flatten(t.Context(), img)
	if _, err := io.ReadFull(r, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil { // returns only when the work has stopped
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r = Flatten(ctx, img)
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want canceled", err)
	}
}

// sparse is an archive of one file of that size, all hole but for its end.
func sparse(size int64) []byte {
	return corpus.Tar(corpus.Entry{Name: "sparse", Type: corpus.TypeReg, Form: corpus.GNUSparse, Size: size, Spans: []corpus.Span{{Offset: size - 4, Data: "data"}}})
}
