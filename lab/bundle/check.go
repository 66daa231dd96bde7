package bundle

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// What a bundle may be at most. A member's size is what USTAR's eleven octal
// digits hold.
const (
	maxManifest = 4 << 20
	maxMembers  = 4096
	maxMember   = 8<<30 - 1
	maxTotal    = 32 << 30
	// MaxSize is what the file of a bundle has at most, in bytes.
	MaxSize       = maxTotal + (maxMembers+5)*2*blockSize + 2*maxManifest + maxSignature
	maxDisk       = 256 << 30 // expanded; most of it is holes
	maxCompressed = 4 << 30   // expanded: an initramfs, a vmlinux with debug information
	maxRecording  = 1 << 30   // expanded
	maxText       = 1024
	maxName       = 100  // USTAR's name field
	maxCmdline    = 1536 // the kernel takes 2048 bytes in all (COMMAND_LINE_SIZE)
)

var (
	isComponent = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.+-]*[A-Za-z0-9_+-])?$`)
	isName      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)
	isHash      = regexp.MustCompile(`^[0-9a-f]{64}$`)
	isCommit    = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	isPlatform  = regexp.MustCompile(`^linux/[a-z0-9]{1,16}(/[a-z0-9]{1,8})?$`)
	isCPU       = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9_.,=+-]{0,127})?$`)
	isCmdline   = regexp.MustCompile(`^[ -~]*$`)
	isModule    = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	isWord      = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
)

// check says the first thing that is wrong with the manifest: "field: reason".
func (m *Manifest) check() error {
	c := checker{members: make(map[string]Member, len(m.Members))}
	c.fields(m)
	c.memberList(m.Members)
	if c.err != nil {
		return c.err
	}
	c.disk(m.Layout, m.Disk)
	for i, l := range m.Layers {
		field := fmt.Sprintf("layers[%d]", i)
		c.compressed(field, l, m)
		c.that(l.Member == LayerMember(m.Layout, l.Digest), field, "%s is no layer of the layout with that digest", l.Member)
	}
	c.patches(m.Patches)
	c.kernels(m)
	c.runs(m)
	if m.Source != "" {
		c.member("source", m.Source)
	}
	if k := m.Culprit; k != nil {
		if k.Package == nil {
			c.matches("culprit.commit", k.Commit, isCommit)
		} else {
			c.ofPackage("culprit", k.Commit, k.Package)
		}
		if k.Patch != "" {
			c.member("culprit.patch", k.Patch)
		}
	}
	for _, t := range m.texts() {
		c.that(*t.value == plain(*t.value), t.field, "%.60q is longer than %d bytes or is not one line of plain text", *t.value, maxText)
	}
	return c.err
}

// checker keeps the first fault.
type checker struct {
	members map[string]Member
	err     error
}

func (c *checker) that(ok bool, field, format string, args ...any) {
	if !ok && c.err == nil {
		c.err = fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...))
	}
}

func (c *checker) matches(field, s string, want *regexp.Regexp) {
	c.that(want.MatchString(s), field, "%.60q does not match %s", s, want)
}

func (c *checker) oneOf(field, s string, words ...string) {
	c.that(slices.Contains(words, s), field, "%.60q is none of %s", s, strings.Join(words, ", "))
}

func (c *checker) between(field string, n, low, high int64) {
	c.that(low <= n && n <= high, field, "%d is not between %d and %d", n, low, high)
}

// member checks that a field names a member.
func (c *checker) member(field, name string) {
	_, ok := c.members[name]
	c.that(ok, field, "there is no member %.120q", name)
}

// exactly checks that a field names a member of a given digest.
func (c *checker) exactly(field, name, digest string) {
	c.member(field, name)
	own := "sha256:" + c.members[name].SHA256
	c.that(digest == own, field, "%s has the digest %s, not %.80q", name, own, digest)
}

// fields checks what refers to no member.
func (c *checker) fields(m *Manifest) {
	c.that(m.Format == Format, "format", "%d is unknown", m.Format)
	c.matches("platform", m.Platform, isPlatform)

	if err := m.Test.Validate(); err != nil {
		c.that(false, "test", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	for _, s := range slices.Concat(m.Test.Command, m.Test.Env, []string{m.Test.User, m.Test.Cwd}) {
		c.that(utf8.ValidString(s), "test", "%.60q is not UTF-8", s)
	}
	c.that(m.Test.Timeout <= 24*time.Hour, "test.timeout", "%s is longer than a day", m.Test.Timeout)

	c.oneOf("machine.accel", m.Machine.Accel, "tcg", "kvm")
	c.matches("machine.cpu", m.Machine.CPU, isCPU)
	c.between("machine.memory", int64(m.Machine.Memory), 32, 64<<10)
	c.between("machine.cpus", int64(m.Machine.CPUs), 1, 64)
	c.that(!m.Machine.Exact || m.Machine.Accel == "tcg" && m.Machine.CPUs == 1, "machine.exact", "takes tcg and one CPU")
	c.matches("machine.cmdline", m.Machine.Cmdline, isCmdline)
	c.between("machine.cmdline", int64(len(m.Machine.Cmdline)), 0, maxCmdline)
	c.between("machine.clock", int64(m.Machine.Clock.Year()), 1970, 2099)
	c.that(m.Machine.Clock.Location() == time.UTC, "machine.clock", "is not in UTC")
	for i, name := range m.Machine.Modules {
		c.matches(fmt.Sprintf("machine.modules[%d]", i), name, isModule)
	}
	boot := time.Duration(m.Machine.BootTimeout)
	c.that(boot > 0 && boot <= 24*time.Hour, "machine.boot_timeout", "%s is not between 0 and a day", boot)

	c.that(m.Rate >= 0 && m.Rate < 1, "rate", "%v is no probability", m.Rate)
	c.oneOf("symptom.kind", m.Symptom.Kind, "test", "crash", "boot", "build")
	c.expression("symptom.good_match", m.Symptom.GoodMatch)
	c.expression("symptom.bad_match", m.Symptom.BadMatch)

	names := make(map[string]bool)
	for i, image := range m.Images {
		field := fmt.Sprintf("images[%d]", i)
		if image.Name != "" || i == 0 || i < len(m.Images)-1 {
			c.matches(field+".name", image.Name, isName)
		}
		c.that(!names[image.Name], field+".name", "%q is there twice", image.Name)
		names[image.Name] = true
		c.matches(field+".platform", image.Platform, isPlatform)
		c.digest(field+".digest", image.Digest)
	}
	c.that(len(m.Images) > 0, "images", "there are none")
	c.that(names[m.Test.Container] && m.Test.Container != "" || m.Test.Container == "" && len(m.Images) == 1,
		"test.container", "%q is no image of this bundle", m.Test.Container)
}

func (c *checker) digest(field, s string) {
	hash, ok := strings.CutPrefix(s, "sha256:")
	c.that(ok && isHash.MatchString(hash), field, "%.80q is not sha256:… in 64 digits", s)
}

func (c *checker) expression(field, s string) {
	c.that(len(s) <= maxText, field, "is longer than %d bytes", maxText)
	if c.err == nil {
		_, err := regexp.Compile(s)
		c.that(err == nil, field, "%v", err)
	}
}

func (c *checker) gzip(field, member string) {
	c.member(field, member)
	c.that(path.Ext(member) == ".gz", field, "%q is not compressed with gzip", member)
}

// compressed checks a file, and that those which share a member are the same.
func (c *checker) compressed(field string, f Compressed, m *Manifest) {
	c.gzip(field, f.Member)
	c.digest(field+".digest", f.Digest)
	c.between(field+".size", f.Size, 1, maxCompressed)
	c.that(m.compressed()[f.Member] == f, field, "%s is another one elsewhere", f.Member)
}

func (c *checker) disk(layout string, d Disk) {
	c.member("layout", path.Join(layout, "index.json"))
	if d.Member != "" {
		c.gzip("disk.member", d.Member)
	}
	c.digest("disk.digest", d.Digest)
	c.between("disk.size", d.Size, 512, maxDisk)
	c.that(d.Size%512 == 0, "disk.size", "%d is no multiple of 512", d.Size)
	c.between("disk.free", d.Free, 0, maxDisk)
}

// ofPackage checks what a kernel that does not come from git came in.
func (c *checker) ofPackage(field, commit string, p *Package) {
	c.that(commit == "", field+".commit", "%.60q, yet it comes in a package", commit)
	c.that(p.Name != "", field+".package.name", "there is none")
	c.digest(field+".package.digest", p.Digest)
}

func (c *checker) patches(list []Patch) {
	for i, p := range list {
		field := fmt.Sprintf("patches[%d]", i)
		c.exactly(field+".member", p.Member, p.Digest)
		if p.Commit != "" {
			c.matches(field+".commit", p.Commit, isCommit)
		}
	}
}

func (c *checker) toolchain(field string, t *Toolchain) {
	c.that((t.Image == "") == (t.Digest == ""), field, "an image without a digest, or a digest without an image")
	if t.Digest != "" {
		c.digest(field+".digest", t.Digest)
	}
	c.between(field+".tools", int64(len(t.Tools)), 1, 16)
	for i, tool := range t.Tools {
		c.matches(fmt.Sprintf("%s.tools[%d].name", field, i), tool.Name, isName)
		c.digest(fmt.Sprintf("%s.tools[%d].digest", field, i), tool.Digest)
	}
}

func (c *checker) kernels(m *Manifest) {
	seen := make(map[string]bool)
	for i, k := range m.Kernels {
		field := fmt.Sprintf("kernels[%d]", i)
		c.oneOf(field+".role", k.Role, RoleGood, RoleBad, RoleCulprit, RoleParent)
		c.that(!seen[k.Role], field+".role", "there are two %s kernels", k.Role)
		seen[k.Role] = true
		if k.Commit != "" {
			c.matches(field+".commit", k.Commit, isCommit)
		}
		if k.Toolchain != nil {
			c.toolchain(field+".toolchain", k.Toolchain)
		}
		if k.Package != nil {
			c.ofPackage(field, k.Commit, k.Package)
		}
		// A kernel that does not build is bad when that is what was hunted.
		if k.Image != "" || m.Symptom.Kind != "build" {
			c.exactly(field+".image", k.Image, k.Digest)
		}
		if i := k.Initramfs; i.Member != "" || (k.Role == RoleGood || k.Role == RoleBad) && k.Image != "" {
			c.compressed(field+".initramfs", i, m)
		}
		if k.Vmlinux != nil {
			c.compressed(field+".vmlinux", *k.Vmlinux, m)
		}
		for _, name := range k.Applied {
			known := slices.ContainsFunc(m.Patches, func(p Patch) bool { return p.Member == name })
			c.that(known, field+".applied", "%.120q is none of the patches", name)
		}
		if k.OnTop != "" {
			c.member(field+".on_top", k.OnTop)
		}
		if k.Config != "" {
			c.member(field+".config", k.Config)
		}
		if k.Log != "" {
			c.member(field+".log", k.Log)
		}
	}
	c.that(seen[RoleGood] && seen[RoleBad], "kernels", "a good and a bad one must be there")
}

func (c *checker) runs(m *Manifest) {
	c.between("runs", int64(len(m.Runs)), 2, maxMembers)
	if c.err != nil {
		return
	}
	recorded := make(map[string]bool)
	for i, r := range m.Runs {
		field := fmt.Sprintf("runs[%d]", i)
		_, ok := m.Kernel(r.Role)
		c.that(ok, field+".role", "there is no %.60q kernel", r.Role)
		c.matches(field+".end", r.End, isWord)
		c.oneOf(field+".verdict", r.Verdict, "good", "bad", "skip")
		c.between(field+".exit", int64(r.Exit), -1, 255)
		c.that(strings.HasPrefix(r.Dir, "runs/") && slices.ContainsFunc(m.Members, func(e Member) bool {
			return strings.HasPrefix(e.Name, r.Dir+"/")
		}), field+".dir", "there is no member below %.120q", r.Dir)
		if r.Recording != nil {
			c.between(field+".recording.size", r.Recording.Size, 1, maxRecording)
			c.compressed(field+".recording", *r.Recording, m)
			c.that(!m.Machine.Exact, field+".recording", "is of an exact machine")
			c.between(field+".recording: machine.cpus", int64(m.Machine.CPUs), 1, 1)
			c.that(!recorded[r.Role], field+".recording", "there are two of the %s kernel", r.Role)
			recorded[r.Role] = true
		}
	}
	for _, role := range []string{RoleGood, RoleBad} {
		_, ok := m.Run(role)
		c.that(ok, "runs", "there is none of the %s kernel", role)
	}
}

// memberList stops at the first fault: what follows it trusts what went before.
func (c *checker) memberList(members []Member) {
	c.that(len(members) <= maxMembers, "members", "there are %d, more than %d", len(members), maxMembers)
	var total int64
	spelled := make(map[string]string) // of files and folders, by their names in lower case
	for i, e := range members {
		if err := checkName(e.Name); err != nil {
			c.that(false, "members", "%v", err)
		}
		c.that(i == 0 || compareNames(members[i-1].Name, e.Name) < 0, "members", "%.120q is there twice or out of order", e.Name)
		c.that(e.Mode == 0o644 || e.Mode == 0o755, e.Name, "mode %#o is neither 0644 nor 0755", e.Mode)
		c.between(e.Name, e.Size, 0, maxMember)
		c.matches(e.Name, e.SHA256, isHash)
		if c.err != nil {
			return
		}
		total += e.Size
		c.between("members", total, 0, maxTotal)
		for name := e.Name; name != "."; name = path.Dir(name) {
			other, taken := spelled[strings.ToLower(name)]
			_, isFile := c.members[name]
			c.that(!taken || other == name, "members", "%.120q and %.120q differ in case alone", other, name)
			c.that(!taken || !isFile && name != e.Name, "members", "%.120q is a file and a folder", name)
			spelled[strings.ToLower(name)] = name
		}
		c.members[e.Name] = e
	}
}

// The order of the members: by the first part of their names, then by name.
// There is nothing else at the top of a bundle.
var parts = []string{manifestName, sumsName, "REPORT.txt", "report.html", "result.json", "reproduce.sh", "inputs", "kernels", "runs", "bisect"}

const folders = 6 // the first folder in parts

func compareNames(a, b string) int {
	part := func(name string) int {
		first, _, _ := strings.Cut(name, "/")
		return slices.Index(parts, first)
	}
	if n := part(a) - part(b); n != 0 {
		return n
	}
	return strings.Compare(a, b)
}

// checkName says what keeps a name from being a member's. Only ASCII letters and
// digits and "_.+-" make up its parts: they mean the same to every file system,
// shell and terminal.
func checkName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("the name %.120q is longer than %d bytes", name, maxName)
	}
	components := strings.Split(name, "/")
	for _, s := range components {
		if !isComponent.MatchString(s) {
			return fmt.Errorf("the name %q is not one a member may have", name)
		}
	}
	part := slices.Index(parts, components[0])
	if part < 2 || (len(components) > 1) != (part >= folders) {
		return fmt.Errorf("the name %q is not one that bundles of format %d have", name, Format)
	}
	return nil
}

// text is a field of free text: people read it, nothing else does.
type text struct {
	field string
	value *string
}

func (m *Manifest) texts() []text {
	t := []text{
		{"lab", &m.Lab},
		{"machine.qemu", &m.Machine.QEMU},
		{"host.kernel", &m.Host.Kernel},
		{"host.cpu", &m.Host.CPU},
		{"host.system", &m.Host.System},
	}
	for i := range m.Images {
		t = append(t, text{fmt.Sprintf("images[%d].reference", i), &m.Images[i].Reference})
	}
	for i := range m.Patches {
		t = append(t, text{fmt.Sprintf("patches[%d].name", i), &m.Patches[i].Name})
	}
	for i := range m.Kernels {
		k, field := &m.Kernels[i], fmt.Sprintf("kernels[%d]", i)
		t = append(t, text{field + ".title", &k.Title}, text{field + ".release", &k.Release}, text{field + ".compiler", &k.Compiler})
		if k.Toolchain != nil {
			t = append(t, text{field + ".toolchain.image", &k.Toolchain.Image})
			for i := range k.Toolchain.Tools {
				t = append(t, text{fmt.Sprintf("%s.toolchain.tools[%d].version", field, i), &k.Toolchain.Tools[i].Version})
			}
		}
		if k.Package != nil {
			t = append(t, text{field + ".package.name", &k.Package.Name}, text{field + ".package.version", &k.Package.Version})
		}
	}
	for i := range m.Runs {
		t = append(t, text{fmt.Sprintf("runs[%d].reason", i), &m.Runs[i].Reason})
	}
	if m.Culprit != nil {
		t = append(t, text{"culprit.title", &m.Culprit.Title}, text{"culprit.author", &m.Culprit.Author})
		for i := range m.Culprit.Options {
			t = append(t, text{fmt.Sprintf("culprit.options[%d]", i), &m.Culprit.Options[i]})
		}
		if p := m.Culprit.Package; p != nil {
			t = append(t, text{"culprit.package.name", &p.Name}, text{"culprit.package.version", &p.Version})
		}
	}
	return t
}

// plain makes one line of plain text of s: what steers a terminal or turns the
// direction of writing becomes '?', and it ends after maxText bytes.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp) {
			return '?'
		}
		return r
	}, s)
	for len(s) > maxText {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}
