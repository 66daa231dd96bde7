package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func f(name, body string) file { return file{Name: name, Body: body} }
func dir(name string) file     { return file{Name: name, Header: tar.Header{Mode: 0o755}} }
func symlink(name, to string) file {
	return file{Name: name, Link: to, Header: tar.Header{Mode: 0o777}}
}
func hardlink(name, to string) file   { return file{Name: name, Link: to, Type: tar.TypeLink} }
func owned(e file, uid, gid int) file { e.Uid, e.Gid = uid, gid; return e }
func mode(e file, m int64) file       { e.Mode = m; return e }

func TestFlattenRules(t *testing.T) {
	tests := []struct {
		name   string
		layers [][]file
		want   []string // without the root, which is 0755 0:0 unless listed
	}{
		{"no layers", nil, nil},
		{"one layer", [][]file{{dir("etc/"), f("etc/a", "A"), symlink("b", "etc/a")}},
			[]string{`b 2 777 0:0 -> etc/a`, `etc/ 5 755 0:0`, `etc/a 0 644 0:0 "A"`}},
		{"names are cleaned", [][]file{{f("./a", "1"), f("/b", "2"), f("c//d", "3"), f("./e/./f", "4"), f("x/../y", "5")}},
			[]string{`a 0 644 0:0 "1"`, `b 0 644 0:0 "2"`, `c/ 5 755 0:0`, `c/d 0 644 0:0 "3"`, `e/ 5 755 0:0`, `e/f 0 644 0:0 "4"`, `y 0 644 0:0 "5"`}},
		{"the root has an owner", [][]file{{owned(mode(dir("./"), 0o1700), 7, 8)}}, []string{"./ 5 1700 7:8"}},
		{"upper replaces lower", [][]file{{f("a", "old")}, {f("a", "new")}}, []string{`a 0 644 0:0 "new"`}},
		{"upper changes a directory's mode and keeps its files", [][]file{{dir("d/"), f("d/a", "A")}, {mode(dir("d/"), 0o700)}},
			[]string{`d/ 5 700 0:0`, `d/a 0 644 0:0 "A"`}},
		{"whiteout of a file", [][]file{{f("a", "A"), f("b", "B")}, {f(".wh.a", "")}}, []string{`b 0 644 0:0 "B"`}},
		{"whiteout of a tree", [][]file{{dir("d/"), dir("d/e/"), f("d/e/f", "F"), f("g", "")}, {f(".wh.d", "")}}, []string{`g 0 644 0:0`}},
		{"whiteout deep down", [][]file{{f("a/b/c/d", "D"), f("a/b/c/e", "E")}, {f("a/b/c/.wh.d", "")}},
			[]string{`a/ 5 755 0:0`, `a/b/ 5 755 0:0`, `a/b/c/ 5 755 0:0`, `a/b/c/e 0 644 0:0 "E"`}},
		{"whiteout of what is not there", [][]file{{f("a", "A")}, {f(".wh.b", ""), f("no/where/.wh.c", ""), f("a/.wh.d", "")}}, []string{`a 0 644 0:0 "A"`}},
		{"whiteout hides lower layers only, before", [][]file{{f("a", "old")}, {f(".wh.a", ""), f("a", "new")}}, []string{`a 0 644 0:0 "new"`}},
		{"whiteout hides lower layers only, after", [][]file{{f("a", "old")}, {f("a", "new"), f(".wh.a", "")}}, []string{`a 0 644 0:0 "new"`}},
		{"whiteout of a directory made anew", [][]file{{mode(dir("d/"), 0o700), f("d/old", "")}, {f("d/new", ""), f(".wh.d", "")}},
			[]string{`d/ 5 755 0:0`, `d/new 0 644 0:0`}},
		{"a name that was whited out comes back", [][]file{{f("a", "1")}, {f(".wh.a", "")}, {f("a", "3")}}, []string{`a 0 644 0:0 "3"`}},
		{"opaque", [][]file{{mode(dir("d/"), 0o700), f("d/a", ""), dir("d/s/"), f("d/s/b", "")}, {f("d/.wh..wh..opq", ""), f("d/c", "C")}},
			[]string{`d/ 5 700 0:0`, `d/c 0 644 0:0 "C"`}},
		{"opaque after its own files", [][]file{{f("d/a", "")}, {dir("d/"), f("d/b", "B"), f("d/.wh..wh..opq", "")}},
			[]string{`d/ 5 755 0:0`, `d/b 0 644 0:0 "B"`}},
		{"opaque root", [][]file{{f("a", ""), f("b", "")}, {f(".wh..wh..opq", ""), f("c", "")}}, []string{`c 0 644 0:0`}},
		{"directory over file", [][]file{{f("a", "A")}, {dir("a/"), f("a/b", "B")}}, []string{`a/ 5 755 0:0`, `a/b 0 644 0:0 "B"`}},
		{"file over directory", [][]file{{f("a/b", "B")}, {f("a", "A")}}, []string{`a 0 644 0:0 "A"`}},
		{"symlink over directory", [][]file{{f("a/b", "B"), dir("x/")}, {symlink("a", "x")}}, []string{`a 2 777 0:0 -> x`, `x/ 5 755 0:0`}},
		{"directory over symlink", [][]file{{dir("x/"), f("x/y", ""), symlink("a", "x")}, {dir("a/"), f("a/b", "B")}},
			[]string{`a/ 5 755 0:0`, `a/b 0 644 0:0 "B"`, `x/ 5 755 0:0`, `x/y 0 644 0:0`}},
		{"file over symlink", [][]file{{f("x", "X"), symlink("a", "x")}, {f("a", "A")}}, []string{`a 0 644 0:0 "A"`, `x 0 644 0:0 "X"`}},
		{"duplicates: the last wins", [][]file{{f("a", "1"), f("b", ""), f("a", "2")}}, []string{`a 0 644 0:0 "2"`, `b 0 644 0:0`}},
		{"duplicate of another type", [][]file{{dir("a/"), f("a/b", ""), f("a", "2")}}, []string{`a 0 644 0:0 "2"`}},
		{"a directory after its files", [][]file{{f("d/a", "A"), mode(dir("d/"), 0o711)}}, []string{`d/ 5 711 0:0`, `d/a 0 644 0:0 "A"`}},

		{"through a symlink", [][]file{{dir("usr/"), dir("usr/lib/"), symlink("lib", "usr/lib")}, {f("lib/a", "A")}},
			[]string{`lib 2 777 0:0 -> usr/lib`, `usr/ 5 755 0:0`, `usr/lib/ 5 755 0:0`, `usr/lib/a 0 644 0:0 "A"`}},
		{"through an absolute symlink", [][]file{{dir("usr/"), symlink("lib", "/usr")}, {f("lib/a", "A")}},
			[]string{`lib 2 777 0:0 -> /usr`, `usr/ 5 755 0:0`, `usr/a 0 644 0:0 "A"`}},
		{"through a symlink that climbs", [][]file{{dir("d/"), symlink("d/up", "../../../../etc"), f("d/up/passwd", "P")}},
			[]string{`d/ 5 755 0:0`, `d/up 2 777 0:0 -> ../../../../etc`, `etc/ 5 755 0:0`, `etc/passwd 0 644 0:0 "P"`}},
		{"through a dangling symlink", [][]file{{symlink("a", "b/c"), f("a/d", "D")}},
			[]string{`a 2 777 0:0 -> b/c`, `b/ 5 755 0:0`, `b/c/ 5 755 0:0`, `b/c/d 0 644 0:0 "D"`}},
		{"whiteout through a symlink", [][]file{{f("usr/a", "A"), f("usr/b", "B"), symlink("lib", "usr")}, {f("lib/.wh.a", "")}},
			[]string{`lib 2 777 0:0 -> usr`, `usr/ 5 755 0:0`, `usr/b 0 644 0:0 "B"`}},
		{"whiteout not through a symlink that this layer replaces", [][]file{{f("usr/a", "A"), symlink("lib", "usr")}, {dir("lib/"), f("lib/.wh.a", "")}},
			[]string{`lib/ 5 755 0:0`, `usr/ 5 755 0:0`, `usr/a 0 644 0:0 "A"`}},

		{"hard link", [][]file{{f("a", "A"), hardlink("b", "a")}}, []string{`a 0 644 0:0 "A"`, `b 1 644 0:0 -> a`}},
		{"hard link to an absolute name", [][]file{{f("d/a", "A"), hardlink("b", "/d/a")}}, []string{`b 1 644 0:0 -> d/a`, `d/ 5 755 0:0`, `d/a 0 644 0:0 "A"`}},
		{"hard link into a lower layer", [][]file{{f("a", "A")}, {hardlink("b", "a")}}, []string{`a 0 644 0:0 "A"`, `b 1 644 0:0 -> a`}},
		{"hard link whose target is removed later", [][]file{{f("a", "A")}, {hardlink("b", "a")}, {f(".wh.a", "")}}, []string{`b 0 644 0:0 "A"`}},
		{"hard link whose target is replaced later", [][]file{{f("a", "A")}, {hardlink("b", "a"), hardlink("c", "a")}, {f("a", "new")}},
			[]string{`a 0 644 0:0 "new"`, `b 0 644 0:0 "A"`, `c 1 644 0:0 -> b`}},
		{"hard link whose target this layer hides", [][]file{{f("d/a", "A")}, {f(".wh.d", ""), hardlink("b", "d/a")}}, []string{`b 0 644 0:0 "A"`}},
		{"hard link whose target goes with its directory", [][]file{{f("d/a", "A"), hardlink("b", "d/a")}, {f("d", "file")}}, []string{`b 0 644 0:0 "A"`, `d 0 644 0:0 "file"`}},
		{"hard link to a symlink", [][]file{{symlink("a", "nowhere"), hardlink("b", "a")}}, []string{`a 2 777 0:0 -> nowhere`, `b 1 777 0:0 -> a`}},
		{"hard link through a symlink", [][]file{{f("usr/a", "A"), symlink("l", "usr"), hardlink("b", "l/a")}},
			[]string{`b 1 644 0:0 -> usr/a`, `l 2 777 0:0 -> usr`, `usr/ 5 755 0:0`, `usr/a 0 644 0:0 "A"`}},
		{"hard link to itself", [][]file{{f("a", "A"), hardlink("a", "a")}}, []string{`a 0 644 0:0 "A"`}},
		{"hard link over a file", [][]file{{f("a", "A"), f("b", "B")}, {hardlink("b", "a")}}, []string{`a 0 644 0:0 "A"`, `b 1 644 0:0 -> a`}},
		{"aufs's own files", [][]file{{dir(".wh..wh.plnk/"), f(".wh..wh.plnk/1.2", "A"), hardlink("a", ".wh..wh.plnk/1.2"), hardlink("b", ".wh..wh.plnk/1.2"), f(".wh..wh.aufs", "")}},
			[]string{`a 0 644 0:0 "A"`, `b 1 644 0:0 -> a`}},

		{"aufs's own files in a directory nobody lists", [][]file{{f(".wh..wh.plnk/1.2", "A"), hardlink("d/a", ".wh..wh.plnk/1.2"), f("d/.wh..wh.orph/x", "")}},
			[]string{`d/ 5 755 0:0`, `d/a 0 644 0:0 "A"`}},

		{"special files", [][]file{{
			{Name: "null", Type: tar.TypeChar, Header: tar.Header{Mode: 0o666, Devmajor: 1, Devminor: 3}},
			{Name: "sda", Type: tar.TypeBlock, Header: tar.Header{Mode: 0o660, Devmajor: 8}},
			{Name: "pipe", Type: tar.TypeFifo}, mode(f("su", "S"), 0o4755), owned(f("big", ""), 4294967294, 65536)}},
			[]string{`big 0 644 4294967294:65536`, `null 3 666 0:0 dev 1:3`, `pipe 6 644 0:0`, `sda 4 660 0:0 dev 8:0`, `su 0 4755 0:0 "S"`}},
		{"extended attributes", [][]file{{
			{Name: "a", Header: tar.Header{PAXRecords: map[string]string{"SCHILY.xattr.user.b": "\x00\xff=\n", "SCHILY.xattr.user.a": ""}}},
			{Name: "b", Header: tar.Header{PAXRecords: map[string]string{"LIBARCHIVE.xattr.user.x%3Ay": "aGVsbG8", "comment": "gone"}}}}},
			[]string{`a 0 644 0:0 user.a="" user.b="\x00\xff=\n"`, `b 0 644 0:0 user.x:y="hello"`}},
		{"long names", [][]file{{f(strings.Repeat("d/", 150)+strings.Repeat("n", 255), "L"), {Name: "gnu" + strings.Repeat("g", 200), Body: "G", Header: tar.Header{Format: tar.FormatGNU}}}}, nil},
		{"global header", [][]file{{{Name: "pax_global_header", Type: tar.TypeXGlobalHeader, Header: tar.Header{PAXRecords: map[string]string{"comment": "x"}}}, f("a", "A")}},
			[]string{`a 0 644 0:0 "A"`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var tars [][]byte
			for _, l := range tt.layers {
				tars = append(tars, tarOf(t, l...))
			}
			img := imageOf(t, tars...)
			got, err := flat(t, img)
			if err != nil {
				t.Fatal(err)
			}
			if tt.name == "long names" {
				if len(got) != 1+150+2 {
					t.Fatalf("%d entries, want 153", len(got))
				}
				return
			}
			want := tt.want
			if len(want) != 1 || !strings.HasPrefix(want[0], "./ ") {
				want = append([]string{"./ 5 755 0:0"}, want...)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if got := mergeAnotherWay(t, tars); !cmp.Equal(want, got) {
				t.Errorf("the reference implementation disagrees:\n%s", cmp.Diff(want, got))
			}
		})
	}
}

func TestFlattenRefuses(t *testing.T) {
	long := strings.Repeat("x", 256)
	tests := []struct {
		name   string
		layers [][]file
		want   string
	}{
		{"name that climbs", [][]file{{f("../etc/passwd", "")}}, `entry "../etc/passwd": path leads out`},
		{"absolute name that climbs", [][]file{{f("/../etc/passwd", "")}}, "path leads out"},
		{"name that climbs later", [][]file{{f("a/../../b", "")}}, "path leads out"},
		{"hard link that climbs", [][]file{{hardlink("a", "../../etc/shadow")}}, "path leads out"},
		{"hard link that dangles", [][]file{{hardlink("a", "b")}}, `entry "a": hard link's target "b" does not exist`},
		{"hard link to a directory", [][]file{{dir("d/"), hardlink("a", "d")}}, "is a directory"},
		{"hard link to the root", [][]file{{hardlink("a", "/")}}, "root directory"},
		{"hard link to what was removed", [][]file{{f("a", "")}, {f(".wh.a", "")}, {hardlink("b", "a")}}, "does not exist"},
		{"hard link below a file", [][]file{{f("a", ""), hardlink("b", "a/c")}}, "not a directory"},
		{"file below a file", [][]file{{f("a", ""), f("a/b", "")}}, `"a" is not a directory`},
		{"symlink loop", [][]file{{symlink("a", "b"), symlink("b", "a"), f("a/c", "")}}, "symbolic links"},
		{"root as a file", [][]file{{f(".", "")}}, "root directory"},
		{"long name", [][]file{{f(long, "")}}, "256 bytes"},
		{"long name out of a symlink", [][]file{{symlink("a", long), f("a/b", "")}}, "256 bytes"},
		{"long path", [][]file{{f(strings.Repeat("abc/", 1100), "")}}, "4400 bytes"},
		{"whiteout of nothing", [][]file{{f("a", "")}, {f("a/.wh.", "")}}, "whiteout of nothing"},
		{"whiteout of the parent", [][]file{{f("a/b", "")}, {f("a/.wh...", "")}}, "whiteout of nothing"},
		{"file below a whiteout", [][]file{{f(".wh.a/b", "")}}, "reserved"},
		{"device number", [][]file{{{Name: "d", Type: tar.TypeChar, Header: tar.Header{Devmajor: 4096}}}}, "4096:0"},
		{"unknown type", [][]file{{{Name: "v", Type: 'V', Header: tar.Header{Format: tar.FormatUSTAR}}}}, "unknown type"},
		{"attribute name", [][]file{{{Name: "a", Header: tar.Header{PAXRecords: map[string]string{"LIBARCHIVE.xattr.a%3Db": ""}}}}}, "name"},
		{"attribute size", [][]file{{{Name: "a", Header: tar.Header{PAXRecords: map[string]string{"SCHILY.xattr.user.a": strings.Repeat("x", 65537)}}}}}, "65537 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var tars [][]byte
			for _, l := range tt.layers {
				tars = append(tars, tarOf(t, l...))
			}
			img := imageOf(t, tars...)
			_, err := flat(t, img)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
			layers, _ := img.Layers()
			digest, _ := layers[len(layers)-1].Digest()
			id, _ := img.Digest()
			for _, s := range []string{digest.String(), id.String(), "entry "} {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("error does not say %s: %v", s, err)
				}
			}
		})
	}
}

func TestFlattenCompressions(t *testing.T) {
	plain := tarOf(t, f("a", strings.Repeat("hello ", 1000)), f("b", ""))
	two := append(gzipped(t, plain[:1000]), gzipped(t, plain[1000:])...)
	for name, stored := range map[string][]byte{
		"plain": plain, "gzip": gzipped(t, plain), "zstd": zstded(t, plain),
		"gzip members": two, "zstd frames": append(zstded(t, plain[:1000]), zstded(t, plain[1000:])...),
		"zstd after a skippable frame": append([]byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3}, zstded(t, plain)...),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := flat(t, withLayers(t, layerOf(plain, stored)))
			if err != nil || len(got) != 3 {
				t.Fatalf("%d entries, error %v", len(got), err)
			}
		})
	}
}

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

func TestFlattenTimes(t *testing.T) {
	times := []time.Time{
		time.Unix(0, 0), time.Unix(1, 123456789), time.Unix(-86400*365*5, 0), time.Unix(-1, 500000000),
		time.Unix(1<<33, 1), time.Unix(1<<40, 0),
	}
	var files []file
	for i, at := range times {
		files = append(files, file{Name: string(rune('a' + i)), Header: tar.Header{ModTime: at}})
	}
	r := Flatten(t.Context(), imageOf(t, tarOf(t, files...)))
	defer r.Close()
	tr := tar.NewReader(r)
	if _, err := tr.Next(); err != nil { // the root
		t.Fatal(err)
	}
	for _, want := range times {
		h, err := tr.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(want) {
			t.Errorf("%s has time %v, want %v", h.Name, h.ModTime.UTC(), want.UTC())
		}
	}
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
		{"sparse", imageOf(t, sparse(t, 1<<40)), Limits{Bytes: 1 << 39}, "Bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := tt.limits.Flatten(t.Context(), tt.img)
			defer r.Close()
			_, err := io.Copy(io.Discard, r)
			var limit *LimitError
			if !errors.As(err, &limit) || limit.Field != tt.field || !strings.Contains(err.Error(), "Limits."+tt.field) {
				t.Fatalf("error %v, want the limit on %s", err, tt.field)
			}
		})
	}
}

func TestFlattenSparse(t *testing.T) {
	for name, b := range map[string][]byte{"gnu": sparse(t, 1<<20), "pax": paxSparse(1 << 20)} {
		t.Run(name, func(t *testing.T) {
			r := Flatten(t.Context(), imageOf(t, b))
			defer r.Close()
			tr := tar.NewReader(r)
			if _, err := tr.Next(); err != nil {
				t.Fatal(err)
			}
			h, err := tr.Next()
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(tr)
			if err != nil {
				t.Fatal(err)
			}
			want := make([]byte, 1<<20)
			copy(want[1<<20-4:], "data")
			if h.Name != "sparse" || h.Typeflag != tar.TypeReg || !bytes.Equal(body, want) {
				t.Errorf("%s %c of %d bytes is not the file that was made sparse", h.Name, h.Typeflag, len(body))
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
