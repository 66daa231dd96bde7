package kernel

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"

	"lab/kernel/kconfig"
)

// A Footprint is what one build read of the source tree, as far as the build
// itself wrote it down: Kbuild keeps, for every object it makes, a file
// .NAME.cmd with the command and the files that the compiler opened
// (scripts/basic/fixdep.c). A build reads about a twentieth of the tree.
//
// With the same configuration and toolchain, a commit that changes nothing of
// that, and nothing that makefiles or Kconfig read, makes the same kernel.
type Footprint struct {
	files map[string]bool // by path from the tree's root
}

// A Change is one path that two trees do not have in common.
type Change struct {
	// Status is git's letter: M for a modified file, A for one that is only in
	// the second tree, D for one that is only in the first, T for one that
	// became something else, such as a symbolic link. A rename is an A and a D.
	Status byte   `json:"status"`
	Path   string `json:"path"`
}

// Matters finds the first change that could make another kernel than the one
// that the footprint is of, and says why. Without any, both trees build to the
// same bytes with the configuration and the toolchain of the footprint: every
// change is to a file that the build did not read, of a kind that only a
// compiler, a documentation tool or another architecture's build reads, and
// none adds or removes a name that the build could look for.
//
// It is symmetric: the footprint may be that of either tree.
func (f *Footprint) Matters(changes []Change) (first Change, why string, matters bool) {
	for _, c := range changes {
		if why := f.matters(c); why != "" {
			return c, why, true
		}
	}
	return Change{}, "", false
}

// matters says why one change could make another kernel; empty when it can't.
func (f *Footprint) matters(c Change) string {
	if why := alwaysMatters(c); why != "" {
		return why
	}
	if f == nil || f.files[c.Path] {
		return "the build reads it"
	}
	return ""
}

// WithoutKconfig leaves out the changes that only Kconfig reads, and tells
// whether there were any. They matter to no kernel whose configuration comes out
// the same; see [Tree.SameConfig].
func WithoutKconfig(changes []Change) (rest []Change, touched bool) {
	for _, c := range changes {
		name := path.Base(c.Path)
		if strings.HasPrefix(name, "Kconfig") && !slices.Contains(readByCompilers, path.Ext(name)) && plain(c.Path) && c.Status != 'T' {
			touched = true
			continue
		}
		rest = append(rest, c)
	}
	return rest, touched
}

// read tells whether a build read a file of a kind that can be left unread.
// What makefiles, Kconfig, scripts and generators read is in no .cmd file, or
// not reliably; a change of such a file always matters.
var (
	readByCompilers = []string{".c", ".h", ".S", ".rst", ".dts", ".yaml"}
	readByMake      = []string{"Kconfig", "Makefile", "Kbuild"} // beginnings of names
	readByRules     = []string{".tbl", ".sh", ".awk", ".pl", ".bc", ".lds"}
	toolDirs        = []string{"scripts", "tools", "usr", "certs"}
)

// alwaysMatters says why a change matters whatever the footprint; empty when
// the footprint decides.
func alwaysMatters(c Change) string {
	if !plain(c.Path) {
		return "its name is not that of a source file"
	}
	parts := strings.Split(c.Path, "/")
	dirs, name := parts[:len(parts)-1], parts[len(parts)-1]
	for _, beginning := range readByMake {
		if strings.HasPrefix(name, beginning) {
			return "make reads it"
		}
	}
	ending := path.Ext(name)
	if slices.Contains(readByRules, ending) || strings.Contains(name, ".lds") || strings.HasPrefix(ending, ".mk") || name == "Build" {
		return "the build runs or reads it"
	}
	elsewhere := unbuilt(dirs)
	switch c.Status {
	case 'M':
	case 'A', 'D':
		if !elsewhere {
			return "it comes or goes, and the build may look for it"
		}
	default:
		return "its type changes"
	}
	if elsewhere {
		return ""
	}
	for _, d := range dirs {
		if slices.Contains(toolDirs, d) {
			return "programs that the build runs are made of it"
		}
	}
	if !slices.Contains(readByCompilers, ending) || name == ending {
		return "it is of a kind that the build may read"
	}
	return ""
}

// unbuilt tells whether a directory is documentation or another architecture's:
// an x86 build looks there for Kconfig files at most.
func unbuilt(dirs []string) bool {
	switch {
	case len(dirs) == 0:
		return false
	case dirs[0] == "Documentation":
		return true
	}
	// User-mode Linux shares files with x86; before 2.6.24 x86 was two.
	ours := []string{"x86", "um", "i386", "x86_64"}
	return len(dirs) >= 2 && dirs[0] == "arch" && !slices.Contains(ours, dirs[1])
}

// plain tells a path as git writes it, with nothing in it that a shell or a
// makefile would take for more than a letter.
func plain(p string) bool {
	if p == "" || p != path.Clean(p) || p[0] == '/' || p == ".." || strings.HasPrefix(p, "../") {
		return false
	}
	for _, r := range p {
		if r == unicode.ReplacementChar || unicode.IsControl(r) || strings.ContainsRune("\\ $'\"`*?[]:;&|<>#%()", r) {
			return false
		}
	}
	return true
}

// Len is the number of files in it.
func (f *Footprint) Len() int {
	if f == nil {
		return 0
	}
	return len(f.files)
}

// Has tells whether the build read that file.
func (f *Footprint) Has(path string) bool { return f != nil && f.files[path] }

// everyKernelHas is a file that is compiled into every kernel. A footprint
// without it was not read whole, or is not that of a kernel.
const everyKernelHas = "init/main.c"

// wholeTree names a symbol of a configuration that makes the build read files
// without writing down which; empty when there is none. Such a build has no
// footprint.
func wholeTree(c kconfig.Config) string {
	for _, symbol := range []string{
		"IKHEADERS",        // packs all headers into the kernel (kernel/gen_kheaders.sh)
		"HEADERS_INSTALL",  // installs all headers
		"UAPI_HEADER_TEST", // compiles all of them
		"BUILD_DOCSRC",     // compiles Documentation, until 4.9
	} {
		if v := c[symbol]; v == "y" || v == "m" {
			return symbol
		}
	}
	for _, symbol := range []string{"INITRAMFS_SOURCE", "EXTRA_FIRMWARE"} { // any files at all
		if v := c[symbol]; strings.Trim(v, `"`) != "" && v != "n" {
			return symbol
		}
	}
	return ""
}

// parseFootprint reads what format wrote.
func parseFootprint(data []byte) (*Footprint, error) {
	text, ok := strings.CutSuffix(string(data), "\n")
	lines := strings.Split(text, "\n")
	if !ok || lines[0] != footprintHeader {
		return nil, fmt.Errorf("a footprint begins with %q", footprintHeader)
	}
	f := &Footprint{files: make(map[string]bool, len(lines))}
	for i, line := range lines[1:] {
		if !plain(line) || i > 0 && line <= lines[i] {
			return nil, fmt.Errorf("line %d of a footprint, %.80q, is not the next path", i+2, line)
		}
		f.files[line] = true
	}
	if !f.files[everyKernelHas] {
		return nil, fmt.Errorf("a footprint without %s", everyKernelHas)
	}
	return f, nil
}

const footprintHeader = "# what this build read, one path a line"

// format writes a footprint, sorted, one path a line.
func (f *Footprint) format() []byte {
	var b strings.Builder
	b.WriteString(footprintHeader + "\n")
	names := make([]string, 0, len(f.files))
	for name := range f.files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b.WriteString(name + "\n")
	}
	return []byte(b.String())
}
