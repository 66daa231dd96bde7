package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// entry is a tar entry of a bundle that somebody made to deceive.
type entry struct {
	tar.Header
	data []byte
	raw  []byte // instead of all that
}

// entries takes a bundle apart.
func entries(t testing.TB, data []byte) []entry {
	t.Helper()
	var list []entry
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, entry{Header: *h, data: content})
	}
}

// assemble makes a tar of entries, whatever they are.
func assemble(t testing.TB, list []entry) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, e := range list {
		if e.raw != nil {
			out.Write(e.raw)
			continue
		}
		var one bytes.Buffer
		w := tar.NewWriter(&one)
		h := e.Header
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(e.data))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(e.data); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		out.Write(one.Bytes())
	}
	out.Write(make([]byte, 2*blockSize))
	return out.Bytes()
}

// forge makes a bundle of a manifest that no check has seen, all digests right.
func forge(t testing.TB, manifest []byte, m Manifest, members []entry) []byte {
	list := []entry{
		{Header: file(manifestName), data: manifest},
		{Header: file(sumsName), data: sums(manifest, m.Members)},
	}
	return assemble(t, append(list, members...))
}

func file(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
}

// hostile is a bundle to be refused, and what has to be said of it.
type hostile struct {
	name string
	data []byte
	want string
}

// hostiles makes them all.
func hostiles(t testing.TB) []hostile {
	m, files := sample(t)
	sound := write(t, m, files)
	list := entries(t, sound)
	m, err := decode(list[0].data)
	if err != nil {
		t.Fatal(err)
	}

	var all []hostile
	add := func(name string, data []byte, want string) { all = append(all, hostile{name, data, want}) }

	// Other manifests, everything else made to fit.
	manifest := func(name, want string, change func(m *Manifest)) {
		other, err := decode(list[0].data)
		if err != nil {
			t.Fatal(err)
		}
		change(&other)
		data, err := encode(other)
		if err != nil {
			t.Fatal(err)
		}
		members := make([]entry, len(other.Members))
		for i, e := range other.Members {
			members[i] = entry{Header: file("x"), data: []byte("x")}
			if i+2 < len(list) {
				members[i] = list[i+2]
			}
			if _, err := header(e.Name, 0o644, 0); err == nil {
				members[i].Name = e.Name
			}
		}
		add(name, forge(t, data, other, members), want)
	}
	rename := func(i int, name string) func(*Manifest) {
		return func(m *Manifest) { m.Members[i].Name = name }
	}
	record := func(change func(m *Manifest, c *Compressed)) func(*Manifest) {
		return func(m *Manifest) {
			for i := range m.Runs[:2] {
				m.Runs[i].Role = RoleBad
				c := m.Kernels[0].Initramfs
				change(m, &c)
				m.Runs[i].Recording = &c
			}
		}
	}
	log := m.Runs[0].Dir + "/console.log"
	manifest("recording without a size", "runs[0].recording.size: 0 is not between 1 and 1073741824", record(func(_ *Manifest, c *Compressed) { c.Member, c.Size = log, 0 }))
	manifest("recording too large", "runs[0].recording.size: 1073741825 is not between 1 and 1073741824", record(func(_ *Manifest, c *Compressed) { c.Member, c.Size = log, 1<<30+1 }))
	manifest("recording that is not compressed", "is not compressed with gzip", record(func(_ *Manifest, c *Compressed) { c.Member = log }))
	manifest("recording of two processors", "runs[0].recording: machine.cpus: 2 is not between 1 and 1", record(func(m *Manifest, _ *Compressed) { m.Machine.CPUs = 2 }))
	manifest("two recordings of a kernel", "runs[1].recording: there are two of the bad kernel", record(func(m *Manifest, _ *Compressed) { m.Machine.CPUs = 1 }))
	last := len(m.Members) - 1
	manifest("parent directory", `the name "bisect/../../evil" is not one a member may have`, rename(last, "bisect/../../evil"))
	manifest("parent directory first", `the name "../evil" is not one a member may have`, rename(last, "../evil"))
	manifest("absolute name", `the name "/tmp/evil" is not one a member may have`, rename(last, "/tmp/evil"))
	manifest("dot", `the name "bisect/./evil" is not one a member may have`, rename(last, "bisect/./evil"))
	manifest("hidden file", `the name "bisect/.profile" is not one a member may have`, rename(last, "bisect/.profile"))
	manifest("two slashes", `the name "bisect//evil" is not one a member may have`, rename(last, "bisect//evil"))
	manifest("slash at the end", `the name "bisect/evil/" is not one a member may have`, rename(last, "bisect/evil/"))
	manifest("backslash", `the name "bisect/..\\..\\evil" is not one a member may have`, rename(last, `bisect/..\..\evil`))
	manifest("drive letter", `the name "bisect/C:evil" is not one a member may have`, rename(last, `bisect/C:evil`))
	manifest("option", `the name "bisect/-rf" is not one a member may have`, rename(last, "bisect/-rf"))
	manifest("line break", `the name "bisect/a\nb" is not one a member may have`, rename(last, "bisect/a\nb"))
	manifest("terminal escape", `the name "bisect/a\x1b[2Jb" is not one a member may have`, rename(last, "bisect/a\x1b[2Jb"))
	manifest("blank", `the name "bisect/a b" is not one a member may have`, rename(last, "bisect/a b"))
	manifest("empty name", `the name "" is not one a member may have`, func(m *Manifest) { m.Members = append([]Member{{Name: ""}}, m.Members...) })
	manifest("unicode letter", `the name "bisect/é" is not one a member may have`, func(m *Manifest) { m.Members = append(m.Members, Member{Name: "bisect/é"}) })
	manifest("right to left", "is not one a member may have", func(m *Manifest) { m.Members = append(m.Members, Member{Name: "bisect/\u202egnp.sh"}) })
	manifest("long name", "is longer than 100 bytes", func(m *Manifest) {
		m.Members = append(m.Members, Member{Name: "bisect/" + strings.Repeat("x", 100)})
	})
	manifest("another top", `the name "evil/x" is not one that bundles of format 1 have`, func(m *Manifest) { m.Members = append(m.Members, Member{Name: "evil/x"}) })
	manifest("the manifest as a member", `the name "manifest.json" is not one that bundles of format 1 have`, rename(last, "manifest.json"))
	manifest("folder as a file", `the name "bisect" is not one that bundles of format 1 have`, rename(last, "bisect"))
	manifest("file as a folder", `the name "REPORT.txt/x" is not one that bundles of format 1 have`, rename(0, "REPORT.txt/x"))
	manifest("a member twice", `"bisect/culprit.patch" is there twice or out of order`, func(m *Manifest) { m.Members = append(m.Members, m.Members[last]) })
	manifest("members out of order", `"REPORT.txt" is there twice or out of order`, func(m *Manifest) { m.Members[0], m.Members[1] = m.Members[1], m.Members[0] })
	manifest("names alike but for case", `differ in case alone`, func(m *Manifest) {
		m.Members = append(m.Members[:last:last], Member{Name: "bisect/X", Mode: 0o644, SHA256: digest(nil)}, Member{Name: "bisect/x", Mode: 0o644, SHA256: digest(nil)})
	})
	manifest("folders alike but for case", `"runs/BAD-1" and "runs/bad-1" differ in case alone`, func(m *Manifest) {
		m.Members = append(m.Members[:last-2:last-2], append([]Member{{Name: "runs/BAD-1/x", Mode: 0o644, SHA256: digest(nil)}}, m.Members[last-2:]...)...)
	})
	manifest("file and folder", `"bisect/x" is a file and a folder`, func(m *Manifest) {
		m.Members = append(m.Members[:last:last], Member{Name: "bisect/x", Mode: 0o644, SHA256: digest(nil)}, Member{Name: "bisect/x/y", Mode: 0o644, SHA256: digest(nil)})
	})
	manifest("setuid", `reproduce.sh: mode 04755 is neither 0644 nor 0755`, func(m *Manifest) { m.Members[2].Mode = 0o4755 })
	manifest("negative size", `-1 is not between`, func(m *Manifest) { m.Members[0].Size = -1 })
	manifest("huge member", `9223372036854775807 is not between`, func(m *Manifest) { m.Members[0].Size = 1<<63 - 1 })
	manifest("huge in all", `members: 42949672955 is not between`, func(m *Manifest) {
		for i := range 5 {
			m.Members[i].Size = maxMember
		}
	})
	manifest("too many members", "members: there are 5000, more than 4096", func(m *Manifest) { m.Members = make([]Member, 5000) })
	manifest("short digest", "does not match", func(m *Manifest) { m.Members[0].SHA256 = "00" })
	manifest("larger than it is", "REPORT.txt: the tar header of REPORT.txt is not the one a bundle has: size", func(m *Manifest) { m.Members[0].Size++ })
	manifest("digest of another", "REPORT.txt: damaged: its sha256 is", func(m *Manifest) { m.Members[0].SHA256 = digest([]byte("x")) })
	manifest("one listed, not there", "bisect/z: the tar has a directory where bisect/z should be", func(m *Manifest) {
		m.Members = append(m.Members, Member{Name: "bisect/z", Mode: 0o644, SHA256: digest(nil)})
	})
	all[len(all)-1].data = func() []byte { // its last entry is not what is listed
		e := entries(t, all[len(all)-1].data)
		e[len(e)-1].Typeflag = tar.TypeDir
		return assemble(t, e)
	}()
	manifest("format 2", "manifest.json: made by a newer lab: format 2, this lab knows format 1", func(m *Manifest) { m.Format = 2 })
	manifest("format 0", "format: 0 is unknown", func(m *Manifest) { m.Format = 0 })
	manifest("platform", "platform: ", func(m *Manifest) { m.Platform = "../linux" })
	manifest("test without a command's name", "test: ", func(m *Manifest) { m.Test.Command = []string{""} })
	manifest("test without end", "test.timeout: 2400h0m0s is longer than a day", func(m *Manifest) { m.Test.Timeout = 2400 * time.Hour })
	manifest("container of another bundle", `test.container: "other" is no image`, func(m *Manifest) { m.Test.Container = "other" })
	manifest("accelerator", "machine.accel: ", func(m *Manifest) { m.Machine.Accel = "tcg,thread=multi" })
	manifest("all the memory", "machine.memory: 16777216 is not between", func(m *Manifest) { m.Machine.Memory = 1 << 24 })
	manifest("no memory", "machine.memory: -1 is not between", func(m *Manifest) { m.Machine.Memory = -1 })
	manifest("all CPUs", "machine.cpus: 4096 is not between", func(m *Manifest) { m.Machine.CPUs = 4096 })
	manifest("CPU", "machine.cpu: ", func(m *Manifest) { m.Machine.CPU = "max -drive file=/etc/shadow" })
	manifest("line in the command line", "machine.cmdline: ", func(m *Manifest) { m.Machine.Cmdline = "a\nb" })
	manifest("long command line", "machine.cmdline: 5000 is not between", func(m *Manifest) { m.Machine.Cmdline = strings.Repeat("x", 5000) })
	manifest("clock", "machine.clock: ", func(m *Manifest) { m.Machine.Clock = time.Unix(-1e9, 0).UTC() })
	manifest("boot without end", "machine.boot_timeout: ", func(m *Manifest) { m.Machine.BootTimeout = 1 << 62 })
	manifest("symptom", "symptom.kind: ", func(m *Manifest) { m.Symptom.Kind = "none" })
	manifest("expression", "symptom.bad_match: ", func(m *Manifest) { m.Symptom.BadMatch = "(" })
	manifest("rate", "rate: 1.5 is no probability", func(m *Manifest) { m.Rate = 1.5 })
	manifest("container name", "images[0].name: ", func(m *Manifest) { m.Images[0].Name = "../../etc" })
	manifest("container without a name", "images[0].name: ", func(m *Manifest) { m.Images[0].Name = "" })
	manifest("base before a container", "images[1].name: ", func(m *Manifest) {
		m.Images = []Image{m.Images[0], {Pin: m.Images[0].Pin}, {Name: "b", Pin: m.Images[0].Pin}}
	})
	manifest("test in the base", "test.container: ", func(m *Manifest) {
		m.Images, m.Test.Container = append(m.Images, Image{Pin: m.Images[0].Pin}), ""
	})
	manifest("image digest", "images[0].digest: ", func(m *Manifest) { m.Images[0].Digest = "sha256:0" })
	manifest("reference", "images[0].reference: ", func(m *Manifest) { m.Images[0].Reference = "a\x1b[2J" })
	manifest("disk elsewhere", `disk.member: there is no member "/dev/sda"`, func(m *Manifest) { m.Disk.Member = "/dev/sda" })
	manifest("layout elsewhere", `layout: there is no member "../etc/index.json"`, func(m *Manifest) { m.Layout = "../etc" })
	manifest("layer elsewhere", "layers[0]: ", func(m *Manifest) {
		m.Layers = []Compressed{{m.Disk.Member, m.Disk.Digest, m.Disk.Size}}
	})
	manifest("layer that is not there", `layers[0]: there is no member "inputs/images/blobs/sha256/`, func(m *Manifest) {
		m.Layers = []Compressed{{LayerMember(m.Layout, m.Disk.Digest), m.Disk.Digest, m.Disk.Size}}
	})
	manifest("neither disk nor images", `layout: there is no member "index.json"`, func(m *Manifest) { m.Layout, m.Disk.Member = "", "" })
	manifest("source elsewhere", `source: there is no member "/etc/passwd"`, func(m *Manifest) { m.Source = "/etc/passwd" })
	manifest("huge disk", "disk.size: 1099511627776 is not between", func(m *Manifest) { m.Disk.Size = 1 << 40 })
	manifest("kernel elsewhere", `kernels[0].image: there is no member "/boot/vmlinuz"`, func(m *Manifest) { m.Kernels[0].Image = "/boot/vmlinuz" })
	manifest("kernel of another digest", "kernels[1].image: ", func(m *Manifest) { m.Kernels[1].Digest = sha(nil) })
	manifest("initramfs elsewhere", `kernels[1].initramfs: there is no member "../x"`, func(m *Manifest) { m.Kernels[1].Initramfs.Member = "../x" })
	manifest("initramfs of two kinds", "kernels[0].initramfs: inputs/initramfs-good.cpio.gz is another one elsewhere", func(m *Manifest) { m.Kernels[1].Initramfs.Digest = sha(nil) })
	manifest("huge initramfs", "kernels[0].initramfs.size: 1099511627776 is not between", func(m *Manifest) { m.Kernels[0].Initramfs.Size, m.Kernels[1].Initramfs.Size = 1<<40, 1<<40 })
	manifest("vmlinux elsewhere", `kernels[1].vmlinux: there is no member "/boot/vmlinux.gz"`, func(m *Manifest) { m.Kernels[1].Vmlinux = &Compressed{"/boot/vmlinux.gz", sha(nil), 1} })
	manifest("initramfs that is none", "kernels[1].initramfs: \"kernels/bad/bzImage\" is not compressed with gzip", func(m *Manifest) { m.Kernels[1].Initramfs.Member = "kernels/bad/bzImage" })
	manifest("config elsewhere", `kernels[0].config: there is no member "/etc/shadow"`, func(m *Manifest) { m.Kernels[0].Config = "/etc/shadow" })
	manifest("two good kernels", "kernels[1].role: there are two good kernels", func(m *Manifest) { m.Kernels[1].Role = RoleGood })
	manifest("role", "kernels[0].role: ", func(m *Manifest) { m.Kernels[0].Role = "ugly" })
	manifest("commit", "kernels[0].commit: ", func(m *Manifest) { m.Kernels[0].Commit = "--output=/etc/passwd" })
	manifest("title", "kernels[0].title: ", func(m *Manifest) { m.Kernels[0].Title = "a\nb" })
	manifest("run elsewhere", `runs[0].dir: there is no member below "/etc"`, func(m *Manifest) { m.Runs[0].Dir = "/etc" })
	manifest("run of no kernel", `runs[1].role: there is no "parent" kernel`, func(m *Manifest) { m.Runs[1].Role = RoleParent })
	manifest("verdict", "runs[0].verdict: ", func(m *Manifest) { m.Runs[0].Verdict = "perfect" })
	manifest("patch elsewhere", `culprit.patch: there is no member "x"`, func(m *Manifest) { m.Culprit.Patch = "x" })
	manifest("package without a digest", `culprit.package.digest: "x" is not sha256`, func(m *Manifest) { m.Culprit.Commit, m.Culprit.Package = "", &Package{Name: "linux", Digest: "x"} })
	manifest("package of a commit", `kernels[0].commit: `, func(m *Manifest) {
		m.Kernels[0].Package = &Package{Name: "linux", Digest: "sha256:" + strings.Repeat("a", 64)}
	})
	manifest("package's version", "kernels[0].package.version: ", func(m *Manifest) {
		m.Kernels[0].Commit, m.Kernels[0].Package = "", &Package{Name: "linux", Version: "1\x1b[31m", Digest: "sha256:" + strings.Repeat("a", 64)}
	})
	manifest("toolchain without a digest", "kernels[0].toolchain: an image without a digest", func(m *Manifest) { m.Kernels[0].Toolchain = &Toolchain{Image: "oci:x"} })
	manifest("toolchain of nothing", "kernels[0].toolchain.tools: 0 is not between", func(m *Manifest) { m.Kernels[0].Toolchain = &Toolchain{} })
	manifest("compiler's digest", `kernels[0].toolchain.tools[0].digest: "x" is not sha256`, func(m *Manifest) { m.Kernels[0].Toolchain = &Toolchain{Tools: []Tool{{"gcc", "12", "x"}}} })
	manifest("compiler's version", "kernels[0].toolchain.tools[0].version: ", func(m *Manifest) {
		m.Kernels[0].Toolchain = &Toolchain{Tools: []Tool{{"gcc", "1\x1b[31m", "sha256:" + strings.Repeat("a", 64)}}}
	})
	manifest("module", `machine.modules[0]: "../x"`, func(m *Manifest) { m.Machine.Modules = []string{"../x"} })
	manifest("patch of another digest", "patches[0].member: ", func(m *Manifest) { m.Patches[0].Digest = sha(nil) })
	manifest("patch on top elsewhere", `patches[0].member: there is no member "/etc/passwd"`, func(m *Manifest) { m.Patches[0].Member = "/etc/passwd" })
	manifest("pick", "patches[0].commit: ", func(m *Manifest) { m.Patches[0].Commit = "--all" })
	manifest("patch's name", "patches[0].name: ", func(m *Manifest) { m.Patches[0].Name = "a\x1b[2J" })
	manifest("applied what is no patch", `kernels[0].applied: "kernels/good/config" is none`, func(m *Manifest) { m.Kernels[0].Applied = []string{"kernels/good/config"} })
	manifest("changed elsewhere", `kernels[1].on_top: there is no member "x"`, func(m *Manifest) { m.Kernels[1].OnTop = "x" })
	manifest("author", "culprit.author: ", func(m *Manifest) { m.Culprit.Author = strings.Repeat("x", 5000) })

	// Other texts of the same manifest.
	edit := func(name, want, from, to string) {
		data := bytes.Replace(list[0].data, []byte(from), []byte(to), 1)
		if bytes.Equal(data, list[0].data) {
			t.Fatalf("%s: the manifest has no %s", name, from)
		}
		add(name, forge(t, data, m, list[2:]), want)
	}
	edit("unknown field", `unknown field "evil"`, `"lab":`, `"evil": 1, "lab":`)
	edit("unknown field in the test", `unknown field "evil"`, `"container":`, `"evil": 1, "container":`)
	edit("field twice", "not in the form that lab writes, from byte", `"lab":`, `"lab": "x", "lab":`)
	edit("field in capitals", "not in the form that lab writes, from byte", `"platform":`, `"Platform":`)
	edit("number in another form", "cannot unmarshal", `"memory": 256`, `"memory": 2.56e2`)
	edit("not UTF-8", "not in the form that lab writes, from byte", "gcc 12", "gcc \xff2")
	edit("NUL", "kernels[0].compiler: ", "gcc 12", `gcc \u0000`)
	edit("no JSON", "manifest.json: invalid character", "{", "<")
	add("more after the manifest", forge(t, append(bytes.Clone(list[0].data), "{}\n"...), m, list[2:]), "not in the form that lab writes, from byte")
	add("an empty manifest", forge(t, []byte{}, m, list[2:]), "manifest.json: EOF")
	add("a large manifest", forge(t, bytes.Repeat([]byte(" "), maxManifest+1), m, list[2:]), "manifest.json: has 4194305 bytes, more than 4194304")
	add("deep JSON", forge(t, bytes.Repeat([]byte("["), 1<<20), m, list[2:]), "manifest.json: ")

	// Other tars.
	change := func(name, want string, how func(list []entry) []entry) {
		add(name, assemble(t, how(append([]entry{}, list...))), want)
	}
	replace := func(i int, with entry) func([]entry) []entry {
		return func(list []entry) []entry { list[i] = with; return list }
	}
	insert := func(i int, with entry) func([]entry) []entry {
		return func(list []entry) []entry {
			return append(append(append([]entry{}, list[:i]...), with), list[i:]...)
		}
	}
	special := func(kind byte) entry {
		return entry{Header: tar.Header{Typeflag: kind, Name: "REPORT.txt", Linkname: "/etc/passwd", Mode: 0o644, Format: tar.FormatUSTAR}}
	}
	change("symbolic link", "REPORT.txt: the tar has a symbolic link where REPORT.txt should be", replace(2, special(tar.TypeSymlink)))
	change("hard link", "REPORT.txt: the tar has a hard link where REPORT.txt should be", replace(2, special(tar.TypeLink)))
	change("character device", "REPORT.txt: the tar has a character device", replace(2, special(tar.TypeChar)))
	change("block device", "REPORT.txt: the tar has a block device", replace(2, special(tar.TypeBlock)))
	change("FIFO", "REPORT.txt: the tar has a FIFO", replace(2, special(tar.TypeFifo)))
	change("directory", "REPORT.txt: the tar has a directory", insert(2, entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: "inputs/", Mode: 0o755, Format: tar.FormatUSTAR}}))
	change("PAX global header", "REPORT.txt: the tar has a PAX global header", insert(2, entry{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"path": "evil"}}}))
	change("PAX header that renames", "REPORT.txt: the tar has a PAX extended header", replace(2, entry{
		Header: tar.Header{Typeflag: tar.TypeReg, Name: "REPORT.txt", Mode: 0o644, PAXRecords: map[string]string{"LAB.x": "y"}, Format: tar.FormatPAX}, data: list[2].data,
	}))
	change("GNU long name", "REPORT.txt: the tar has a GNU long name", replace(2, entry{
		Header: tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat("x", 200), Mode: 0o644, Format: tar.FormatGNU}, data: list[2].data,
	}))
	flag := func(kind byte) []byte {
		raw := assemble(t, list[2:3])
		raw = raw[:len(raw)-2*blockSize]
		raw[156] = kind
		copy(raw[148:156], "        ")
		sum := 0
		for _, c := range raw[:blockSize] {
			sum += int(c)
		}
		copy(raw[148:156], fmt.Sprintf("%06o\x00 ", sum))
		return raw
	}
	change("GNU sparse file", "REPORT.txt: the tar has a GNU sparse file", replace(2, entry{raw: flag(tar.TypeGNUSparse)}))
	change("unknown type", "REPORT.txt: the tar header of REPORT.txt is", replace(2, entry{raw: flag('9')}))
	change("old regular file", "REPORT.txt: the tar header of REPORT.txt is not the one a bundle has: type", replace(2, entry{raw: flag(0)}))
	change("manifest not first", `manifest.json: the tar has "REPORT.txt" where manifest.json should be`, insert(0, list[2]))
	change("no manifest", `manifest.json: the tar has "SHA256SUMS" where manifest.json should be`, func(l []entry) []entry { return l[1:] })
	change("no SHA256SUMS", `SHA256SUMS: the tar has "REPORT.txt" where SHA256SUMS should be`, func(l []entry) []entry { return append(l[:1:1], l[2:]...) })
	change("other SHA256SUMS", "SHA256SUMS: does not agree with manifest.json", func(l []entry) []entry {
		l[1].data = append(bytes.Clone(l[1].data), sums(nil, nil)...)
		return l
	})
	change("member left out", `result.json: the tar has "reproduce.sh" where result.json should be`, func(l []entry) []entry { return append(l[:3:3], l[4:]...) })
	change("last member left out", `bisect/culprit.patch: the tar ends before bisect/culprit.patch`, func(l []entry) []entry { return l[:len(l)-1] })
	change("member put in between", `REPORT.txt: the tar has "evil" where REPORT.txt should be`, insert(2, entry{Header: file("evil"), data: []byte("x")}))
	change("member put at the end", `the tar has "../evil", which the manifest does not have`, insert(len(list), entry{Header: file("../evil"), data: []byte("x")}))
	change("member twice in the tar", `the tar has "bisect/culprit.patch", which the manifest does not have`, insert(len(list), list[len(list)-1]))
	odd := func(name, what string, set func(*tar.Header)) {
		e := list[2]
		set(&e.Header)
		change(name, "REPORT.txt: the tar header of REPORT.txt is not the one a bundle has: "+what, replace(2, e))
	}
	odd("owner", "owner", func(h *tar.Header) { h.Uid = 1000 })
	odd("owner's name", "owner's name", func(h *tar.Header) { h.Uname = "root" })
	odd("time", "time", func(h *tar.Header) { h.ModTime = time.Unix(1e9, 0) })
	odd("mode", "mode", func(h *tar.Header) { h.Mode = 0o4755 })
	odd("link name", "link name", func(h *tar.Header) { h.Linkname = "/etc/passwd" })

	// Other bytes.
	at := len(assemble(t, list[:2])) - 2*blockSize // where REPORT.txt's header begins
	add("empty", nil, "manifest.json: truncated: the tar ends after 0 of the 512 bytes of its header")
	add("zeros", make([]byte, 10240), "manifest.json: the tar ends before manifest.json")
	add("no tar", bytes.Repeat([]byte("no tar "), 1000), "manifest.json: where manifest.json should be there is no tar header")
	add("gzip", append([]byte{0x1f, 0x8b, 8}, sound...), "manifest.json: where manifest.json should be there is no tar header")
	add("truncated header", sound[:at+100], "REPORT.txt: truncated: the tar ends after 100 of the 512 bytes of its header")
	add("truncated member", sound[:at+blockSize+4], fmt.Sprintf("REPORT.txt: truncated at byte 4 of %d", len(list[2].data)))
	add("truncated padding", sound[:at+2*blockSize-1], "REPORT.txt: truncated in the padding after its")
	add("truncated manifest", sound[:blockSize+7], fmt.Sprintf("manifest.json: truncated at byte 7 of %d", len(list[0].data)))
	add("no end", sound[:len(sound)-2*blockSize], "truncated: 0 of the 1024 bytes that end the tar are there")
	add("half an end", sound[:len(sound)-blockSize], "truncated: 512 of the 1024 bytes that end the tar are there")
	add("zeros after the end", append(bytes.Clone(sound), 0), "there is something after the last member")
	add("text after the end", append(bytes.Clone(sound), "x"...), "there is something after the last member")
	add("a bundle after the end", append(bytes.Clone(sound), sound...), "there is something after the last member")
	patched := bytes.Clone(sound)
	patched[at+2*blockSize-1] = 1
	add("padding", patched, "REPORT.txt: its padding is not zero")
	return all
}

func TestHostileBundlesAreRefused(t *testing.T) {
	seen := make(map[string]bool)
	for _, h := range hostiles(t) {
		t.Run(h.name, func(t *testing.T) {
			if seen[h.name] {
				t.Error("two cases have this name")
			}
			seen[h.name] = true
			path := put(t, h.data)
			err := refusedBy(t, path)
			if err == nil || !strings.Contains(err.Error(), h.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v\nwant %s", err, h.want)
			}
		})
	}
	if len(seen) < 40 {
		t.Errorf("there are only %d cases", len(seen))
	}
}

// refusedBy opens a bundle that has to be refused, and checks that nothing is left.
func refusedBy(t testing.TB, path string) error {
	t.Helper()
	parent := filepath.Dir(path)
	b, err := Open(context.Background(), path, filepath.Join(parent, "a", "q"))
	if !errors.Is(err, fs.ErrNotExist) || b != nil {
		t.Fatalf("opened into a directory without parent: %v", err)
	}
	_, err = Open(context.Background(), path, filepath.Join(parent, "q"))
	var refused *RefusedError
	if err != nil && !errors.As(err, &refused) {
		t.Errorf("%v is no RefusedError", err)
	}
	left, readErr := os.ReadDir(parent)
	if readErr != nil {
		t.Fatal(readErr)
	}
	if len(left) != 1 || left[0].Name() != filepath.Base(path) {
		t.Errorf("left behind: %v", left)
	}
	return err
}

func TestOpenWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, dir, "/dev/zero", filepath.Join(dir, "none")} {
		q := filepath.Join(t.TempDir(), "q")
		if _, err := Open(context.Background(), path, q); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := os.Stat(q); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the directory is left: %v", path, err)
		}
	}
}

func TestAFlippedBitInAnyByteIsRefused(t *testing.T) {
	m, files := sample(t)
	data := write(t, m, files)
	create := func(string) (io.WriteCloser, error) { return discard{}, nil }
	if _, _, err := read(bytes.NewReader(data), create); err != nil {
		t.Fatal(err)
	}
	step := 1
	if testing.Short() {
		step = 17
	}
	for i := 0; i < len(data); i += step {
		bit := i % 8 // another one in each byte: all of them take minutes
		data[i] ^= 1 << bit
		_, _, err := read(bytes.NewReader(data), create)
		var refused *RefusedError
		if !errors.As(err, &refused) {
			t.Fatalf("bit %d of byte %d flipped: %v", bit, i, err)
		}
		data[i] ^= 1 << bit
	}
	for n := 0; n < len(data); n += 13 * step {
		var refused *RefusedError
		if _, _, err := read(bytes.NewReader(data[:n]), create); !errors.As(err, &refused) || !strings.Contains(err.Error(), "truncated") {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
}

func TestHostileDisks(t *testing.T) {
	ctx := context.Background()
	m, files := sample(t)
	b, err := Open(ctx, put(t, write(t, m, files)), filepath.Join(t.TempDir(), "q"))
	if err != nil {
		t.Fatal(err)
	}
	member := b.Path(m.Disk.Member)
	sound, err := os.ReadFile(member)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data []byte
		disk Disk
		want string
	}{
		"no gzip":     {[]byte("no gzip at all"), m.Disk, "gzip: invalid header"},
		"truncated":   {sound[:len(sound)-9], m.Disk, "unexpected EOF"},
		"two streams": {append(bytes.Clone(sound), sound...), m.Disk, "something follows what is compressed"},
		"bomb":        {sound, Disk{Member: m.Disk.Member, Size: 4096, Digest: m.Disk.Digest}, "expands to more than 4096 bytes"},
		"smaller":     {sound, Disk{Member: m.Disk.Member, Size: 1 << 30, Digest: m.Disk.Digest}, "expands to 1048576 bytes"},
		"other":       {sound, Disk{Member: m.Disk.Member, Size: m.Disk.Size, Digest: sha(nil)}, "expands to 1048576 bytes with the digest"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(member, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			b.Manifest.Disk = c.disk
			path := filepath.Join(t.TempDir(), "disk.img")
			err := b.Expand(ctx, m.Disk.Member, path)
			var refused *RefusedError
			if !errors.As(err, &refused) || refused.Member != m.Disk.Member || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the disk is left: %v", err)
			}
		})
	}
}
