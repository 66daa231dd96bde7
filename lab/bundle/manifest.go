// Package bundle writes and opens bundles: one file that holds everything a
// bisection went in with and came out with, so that anyone can see the container
// break again.
//
// A bundle of format 1 is a plain POSIX tar (USTAR, no extensions), whose bytes
// follow entirely from the manifest and the members' contents:
//
//	manifest.json    what everything is, with every other member's size and digest
//	SHA256SUMS       sha256sum(1)'s list: manifest.json, then every member
//	REPORT.txt       for people
//	report.html      for people with a browser
//	result.json      for programs
//	reproduce.sh     boots both kernels with QEMU alone; see [Script]
//	inputs/…         the images (an OCI layout) and the guest disk made of them (disk.img.gz), initramfs, patches
//	kernels/…        images, configurations, build logs
//	runs/…           what every run saw
//	bisect/…         the log of the search, the culprit's patch
//	SHA256SUMS.sig   a signature, perhaps; see [Signature]
//
// Within a folder, members are sorted by name. There are no folders in the tar,
// owner is 0, modes are 0644 and 0755, times are 0.
//
// A bundle that comes from elsewhere is hostile. [Open] computes what each byte
// outside the members' contents must be and compares, instead of interpreting
// what it is given; nothing is handed out before all of it was verified. The
// digests protect against damage, not against somebody who makes a bundle to
// deceive; a signature tells who made it.
package bundle

import (
	"path"
	"strings"
	"time"

	"lab/oci"
	"lab/probe"
)

// Format is the format that this package writes, and the only one it opens.
const Format = 1

// Manifest is the content of manifest.json. Its JSON has one form only, the one
// that [Write] gives it: fields in this order, none unknown, none twice.
type Manifest struct {
	Format   int        `json:"format"`   // set by Write
	Lab      string     `json:"lab"`      // lab's version
	Platform string     `json:"platform"` // of the guest: linux/amd64
	Test     probe.Spec `json:"test"`
	Machine  Machine    `json:"machine"`
	Symptom  Symptom    `json:"symptom"`
	Images   []Image    `json:"images"` // the containers on the disk
	Layout   string     `json:"layout"` // folder of members that is an OCI layout of the images
	// Layers are those of the images' layers that no registry has compressed. The layout
	// is whole where each is expanded: blobs/sha256/HEX from blobs/sha256/HEX.gz.
	Layers  []Compressed `json:"layers,omitempty"`
	Disk    Disk         `json:"disk"`
	Patches []Patch      `json:"patches,omitempty"` // what was put on top of commits, in this order
	Kernels []Kernel     `json:"kernels"`           // one of each role; good and bad are always there
	Runs    []Run        `json:"runs"`              // at least one of the good and of the bad kernel
	Rate    float64      `json:"rate,omitempty"`    // at which a bad kernel fails, where the runs say that it does not always
	Culprit *Culprit     `json:"culprit,omitempty"`
	// Source is a member that git fetches from, git-bundle(1): the commits that were
	// searched. It may be empty.
	Source  string   `json:"source,omitempty"`
	Host    Host     `json:"host"`
	Members []Member `json:"members"` // set by Write; in the tar's order
}

// Machine is the guest's machine, in the fields from which it is built again. A
// recorded command line is never run.
type Machine struct {
	Accel       string    `json:"accel"`  // tcg or kvm: the one that was really used
	QEMU        string    `json:"qemu"`   // QEMU's version
	CPU         string    `json:"cpu"`    // QEMU's name of the model; empty is QEMU's default
	Memory      int       `json:"memory"` // MiB
	CPUs        int       `json:"cpus"`
	Cmdline     string    `json:"cmdline"`           // added to the kernel command line
	Modules     []string  `json:"modules,omitempty"` // asked for by name; they are in the kernels' initramfs
	Clock       time.Time `json:"clock"`             // the guest's clock at power on, UTC
	BootTimeout Duration  `json:"boot_timeout"`
	Exact       bool      `json:"exact,omitempty"` // every run is the same, byte by byte
}

// Duration is a time.Duration that JSON has in Go's notation: "1m30s".
type Duration time.Duration

// MarshalText gives the duration in Go's notation.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration does.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// Symptom is what the bisection hunted for.
type Symptom struct {
	Kind      string `json:"kind"`       // test, crash, boot or build
	GoodMatch string `json:"good_match"` // regular expressions (RE2); empty: none
	BadMatch  string `json:"bad_match"`
}

// Image is a container image by the name it has in the test. The last one may have
// none: its root file system is the guest's own, around the containers.
type Image struct {
	Name string `json:"name"`
	oci.Pin
}

// Disk is the guest's disk. The member is the disk compressed with gzip; a slim
// bundle has none, and the disk is made of the images again.
type Disk struct {
	Member string `json:"member"`
	Digest string `json:"digest"` // sha256:… of the disk expanded
	Size   int64  `json:"size"`   // bytes, expanded
	Free   int64  `json:"free"`   // bytes that were asked for beyond the containers
}

// Compressed is a file that the bundle has compressed with gzip.
type Compressed struct {
	Member string `json:"member"`
	Digest string `json:"digest"` // sha256:… of the file
	Size   int64  `json:"size"`   // its bytes
}

// Roles of a kernel.
const (
	RoleGood    = "good"    // the good kernel that a reproduction boots
	RoleBad     = "bad"     // the bad kernel that a reproduction boots
	RoleCulprit = "culprit" // the first bad commit
	RoleParent  = "parent"  // a parent of the first bad commit
)

// Kernel is one kernel. Kernels may share members: the culprit may be the bad one.
type Kernel struct {
	Role      string     `json:"role"`
	Commit    string     `json:"commit"` // empty when it does not come from git
	Package   *Package   `json:"package,omitempty"`
	Title     string     `json:"title"`
	Release   string     `json:"release"`
	Compiler  string     `json:"compiler"`
	Toolchain *Toolchain `json:"toolchain,omitempty"` // what it was built with, where lab built it
	Digest    string     `json:"digest"`              // sha256:… of the image
	Image     string     `json:"image"`               // members; config and log may be empty
	Config    string     `json:"config"`
	Log       string     `json:"log"`
	// Applied are the members of those Patches that changed something here, and
	// OnTop is the member with all that they changed.
	Applied []string `json:"applied,omitempty"`
	OnTop   string   `json:"on_top,omitempty"`
	// Initramfs is the guest's initial root: lab's agent, the test and the modules
	// that the kernel needs for the disk. Not every kernel can take one that is
	// compressed.
	Initramfs Compressed `json:"initramfs"`
	// Vmlinux is the same kernel with its symbols, where it was asked for.
	Vmlinux *Compressed `json:"vmlinux,omitempty"`
}

// Toolchain names the programs that a kernel was built with. They are not in the
// bundle.
type Toolchain struct {
	Image  string `json:"image,omitempty"`  // reference of the image that they were in
	Digest string `json:"digest,omitempty"` // and its digest
	Tools  []Tool `json:"tools"`
}

// Tool is one program of a toolchain.
type Tool struct {
	Name    string `json:"name"` // gcc, cc1, as or ld
	Version string `json:"version"`
	Digest  string `json:"digest"` // sha256:… of its bytes
}

// Patch is a change that kernels of commits were built with: a patch that was
// given, or a commit that was picked.
type Patch struct {
	Name   string `json:"name"`             // the file's, or the commit's title
	Commit string `json:"commit,omitempty"` // of a pick
	Digest string `json:"digest"`           // sha256:… of the member
	Member string `json:"member"`
}

// Package is what a ready-made kernel came in. Its title is its name and version.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"` // may be empty
	Digest  string `json:"digest"`  // sha256:… of the package
}

// Run is one boot of one kernel with the test.
type Run struct {
	Role    string `json:"role"`    // the kernel's
	End     string `json:"end"`     // where it ended: boot, test, crash, timeout …
	Verdict string `json:"verdict"` // good, bad or skip
	Reason  string `json:"reason"`
	Exit    int    `json:"exit"` // the test's exit status, when End is test
	Dir     string `json:"dir"`  // the folder of its members: runs/good-1
	// Recording is QEMU's log of the run, by which the same execution can be played back.
	Recording *Compressed `json:"recording,omitempty"`
}

// Culprit is the first bad commit; or the config options that make it bad; or the first bad one of ready-made kernels:
// then Package is set, and of the rest only Title.
type Culprit struct {
	Commit  string    `json:"commit"`
	Package *Package  `json:"package,omitempty"`
	Title   string    `json:"title"`
	Author  string    `json:"author"`
	Date    time.Time `json:"date"`
	Patch   string    `json:"patch"` // member
	// Options are lines of a .config, with which Commit is bad and without which it
	// is good, where configurations were bisected.
	Options []string `json:"options,omitempty"`
}

// Host is the machine that made the bundle. Nothing in it names a person, a
// path or a network.
type Host struct {
	Kernel string `json:"kernel"` // uname -r
	CPU    string `json:"cpu"`    // model name of /proc/cpuinfo
	System string `json:"system"` // PRETTY_NAME of os-release
}

// Member is one file of the bundle.
type Member struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Mode   int64  `json:"mode"`
	SHA256 string `json:"sha256"` // 64 hexadecimal digits
}

// LayerMember is the name that a compressed layer has, by the folder of the layout and
// the digest of the layer.
func LayerMember(layout, digest string) string {
	return path.Join(layout, "blobs/sha256", strings.TrimPrefix(digest, "sha256:")) + ".gz"
}

// compressed gives the members that are, by name.
func (m *Manifest) compressed() map[string]Compressed {
	list := map[string]Compressed{}
	add := func(c *Compressed) {
		if c != nil && c.Member != "" {
			list[c.Member] = *c
		}
	}
	add(&Compressed{m.Disk.Member, m.Disk.Digest, m.Disk.Size})
	for _, l := range m.Layers {
		add(&l)
	}
	for _, k := range m.Kernels {
		add(&k.Initramfs)
		add(k.Vmlinux)
	}
	for _, r := range m.Runs {
		add(r.Recording)
	}
	return list
}

// Kernel returns the kernel of a role.
func (m *Manifest) Kernel(role string) (Kernel, bool) {
	for _, k := range m.Kernels {
		if k.Role == role {
			return k, true
		}
	}
	return Kernel{}, false
}

// Run returns the first run of the kernel of a role.
func (m *Manifest) Run(role string) (Run, bool) {
	for _, r := range m.Runs {
		if r.Role == role {
			return r, true
		}
	}
	return Run{}, false
}
