package kernel

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// A Toolchain is what kernels are built with, as far as it shows in the bytes
// that come out: the host's programs, or those of an image. The zero Toolchain
// of [BuildOptions] stands for the installed gcc that suits the commit's age.
type Toolchain struct {
	Image  string `json:"image,omitempty"`  // reference of the image that it is in; empty: the host's
	Digest string `json:"digest,omitempty"` // and the image's digest
	Tools  []Tool `json:"tools"`            // gcc, cc1, as and ld

	path string // the children's PATH
	room *room  // where they run; nil: on the host
}

// A Tool is one program of a toolchain.
type Tool struct {
	Name    string `json:"name"`
	Path    string `json:"path,omitempty"`    // where it was found; of an image, inside
	Version string `json:"version,omitempty"` // the first line of --version; cc1 has gcc's
	Digest  string `json:"digest,omitempty"`  // sha256:… of its bytes
}

// Compiler is the first line of the compiler's version.
func (t Toolchain) Compiler() string { return t.tool("gcc").Version }

func (t Toolchain) tool(name string) Tool {
	for _, tool := range t.Tools {
		if tool.Name == name {
			return tool
		}
	}
	return Tool{}
}

// Identity is what tells two toolchains apart: versions, bytes and the image,
// and not where on the host they are.
func (t Toolchain) Identity() []string {
	if len(t.Tools) == 0 {
		return nil
	}
	list := []string{t.tool("gcc").Version, t.tool("ld").Version, t.tool("as").Version}
	for _, name := range []string{"gcc", "cc1", "as", "ld"} {
		list = append(list, name+" "+t.tool(name).Digest)
	}
	if t.Digest != "" {
		list = append(list, "image "+t.Digest)
	}
	return list
}

// recordOf is the toolchain for the record of a kernel that came out of the
// cache; its key says that it was made with this one. Of none it is nil.
func (t Toolchain) recordOf(k Kernel) *Toolchain {
	if k.Image == "" {
		return nil
	}
	return &t
}

// Public is the toolchain without the places of this machine.
func (t Toolchain) Public() Toolchain {
	p := Toolchain{Image: t.Image, Digest: t.Digest}
	for _, tool := range t.Tools {
		if t.Image == "" {
			tool.Path = ""
		}
		p.Tools = append(p.Tools, tool)
	}
	return p
}

// buildTools are the programs without which no kernel builds. What else a
// configuration or an age of the tree asks for, the build's log tells.
var buildTools = []string{"git", "make", "gcc", "ld", "as", "flex", "bison"}

// FindToolchain finds a compiler on this host: by its name on the PATH, as
// gcc-9 is, by its path, or by a folder that has it as gcc or bin/gcc.
//
// Whatever it is called, makefiles find it as gcc, for what they compile and for
// the programs that they run: it is first on the children's PATH. So its name
// gets into no kernel, and needs no variable of make's. A folder's other
// programs, such as as and ld, come along.
func FindToolchain(ctx context.Context, cache, name string) (Toolchain, error) {
	t, err := findToolchain(ctx, cache, name)
	if err != nil {
		return Toolchain{}, fmt.Errorf("toolchain %s: %w", name, err)
	}
	return t, nil
}

func findToolchain(ctx context.Context, cache, name string) (Toolchain, error) {
	var gcc string
	if strings.ContainsRune(name, filepath.Separator) {
		abs, err := filepath.Abs(name)
		if err != nil {
			return Toolchain{}, err
		}
		info, err := os.Stat(abs)
		if err != nil {
			return Toolchain{}, err
		}
		if gcc = abs; info.IsDir() {
			if gcc = firstFile(filepath.Join(abs, "bin/gcc"), filepath.Join(abs, "gcc")); gcc == "" {
				return Toolchain{}, errors.New("a folder without gcc or bin/gcc")
			}
		}
	} else if gcc, _ = lookIn("/", os.Getenv("PATH"), name); gcc == "" {
		return Toolchain{}, &MissingError{Tool: name, For: "build a kernel"}
	}
	return hostToolchain(ctx, cache, gcc)
}

func firstFile(paths ...string) string {
	for _, p := range paths {
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() {
			return p
		}
	}
	return ""
}

// hostToolchain is the toolchain of this host with the compiler at that path;
// empty for gcc as it is on the PATH.
func hostToolchain(ctx context.Context, cache, gcc string) (Toolchain, error) {
	t := Toolchain{path: os.Getenv("PATH")}
	if gcc != "" {
		dir := filepath.Dir(gcc)
		if filepath.Base(gcc) != "gcc" {
			var err error
			if dir, err = linkAsGCC(cache, gcc); err != nil {
				return Toolchain{}, err
			}
		}
		t.path = dir + string(filepath.ListSeparator) + t.path
	}
	for _, name := range buildTools {
		if p, _ := lookIn("/", t.path, name); p == "" {
			return Toolchain{}, &MissingError{Tool: name, For: "build a kernel"}
		}
	}
	return t, t.examine(ctx, cache)
}

// linkAsGCC gives a folder in which a compiler of another name is gcc, and the
// C++ compiler beside it g++.
func linkAsGCC(cache, gcc string) (string, error) {
	dir, err := filepath.Abs(filepath.Join(cache, "toolchains", ".links", cacheKey([]string{gcc})[:16]))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	links := map[string]string{"gcc": gcc}
	base := filepath.Base(gcc)
	if cxx := filepath.Join(filepath.Dir(gcc), strings.Replace(base, "gcc", "g++", 1)); cxx != gcc && firstFile(cxx) != "" {
		links["g++"] = cxx
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	return dir, nil
}

// examine finds out what the toolchain's programs are, and for one in an image
// how to get in.
func (t *Toolchain) examine(ctx context.Context, dir string) error {
	root := "/"
	if t.room != nil {
		root = t.room.root
	}
	versions := map[string]string{}
	for _, name := range []string{"gcc", "cc1", "as", "ld"} {
		found := name
		if name == "cc1" {
			// gcc only starts the compiler proper, cc1, which may change without it.
			var err error
			if found, err = t.ask(ctx, dir, "gcc", "-print-prog-name=cc1"); err != nil {
				return err
			}
		}
		path, real := lookIn(root, t.path, found)
		if path == "" {
			return t.missing(name)
		}
		if t.room != nil && name == "gcc" {
			if err := runsHere(real); err != nil {
				return err
			}
			if err := t.room.open(ctx, *t); err != nil {
				return err
			}
		}
		digest, err := digestFile(real)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		if name != "cc1" {
			if versions[name], err = t.ask(ctx, dir, name, "--version"); err != nil {
				return err
			}
		} else {
			versions[name] = versions["gcc"]
		}
		t.Tools = append(t.Tools, Tool{Name: name, Path: path, Version: versions[name], Digest: digest})
	}
	return nil
}

// runsHere refuses a program for another machine. Scripts run anywhere.
func runsHere(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	if f.Machine != elf.EM_X86_64 && f.Machine != elf.EM_386 {
		return fmt.Errorf("its gcc is for another machine (%s): x86-64 is needed", f.Machine)
	}
	return nil
}

// missing is the error about a program that the toolchain lacks.
func (t Toolchain) missing(name string) error {
	return &MissingError{Tool: name, For: "build a kernel", Image: t.Image}
}

// has tells whether makefiles find a program.
func (t Toolchain) has(name string) bool {
	root := "/"
	if t.room != nil {
		root = t.room.root
	}
	path, _ := lookIn(root, t.path, name)
	return path != ""
}

// ask returns the first line of what a program prints.
func (t Toolchain) ask(ctx context.Context, dir, name string, args ...string) (string, error) {
	var out bytes.Buffer
	c := child{dir: dir, env: t.env(baseEnv(dir)), stdout: &out, room: t.room}
	path := name
	if t.room == nil {
		path, _ = lookIn("/", t.path, name)
	} else {
		c.dir = "/"
	}
	if err := c.run(ctx, path, args...); err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", name, err)
	}
	line, _, _ := strings.Cut(out.String(), "\n")
	if line = strings.TrimSpace(printable([]byte(line))); line == "" {
		return "", errors.New("ask " + name + " for its version: it says nothing")
	}
	return line, nil
}

// env is the environment of the toolchain's programs: the later of two settings
// of a variable wins.
func (t Toolchain) env(base []string) []string {
	base = append(base, "PATH="+t.path)
	if t.room != nil {
		base = append(base, "TMPDIR=/tmp", "HOME=/tmp")
		base = append(base, t.room.env...)
	}
	return base
}

// lookIn finds a program in the folders of a PATH below root: its path there, and
// where on the host its bytes are. A name with a slash is a path already. Both
// are empty where there is none.
func lookIn(root, path, name string) (found, real string) {
	candidates := []string{name}
	if !strings.Contains(name, "/") {
		candidates = nil
		for _, dir := range filepath.SplitList(path) {
			candidates = append(candidates, filepath.Join(dir, name))
		}
	}
	for _, c := range candidates {
		if !filepath.IsAbs(c) {
			continue
		}
		real, err := resolveIn(root, c)
		if err != nil {
			continue
		}
		if info, err := os.Stat(real); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return filepath.Clean(c), real
		}
	}
	return "", ""
}

// maxLinks is how many symbolic links Linux follows (path_resolution(7)).
const maxLinks = 40

// resolveIn follows the symbolic links of a path as if root were the file
// system's, and gives the path on the host.
func resolveIn(root, path string) (string, error) {
	at, rest := "/", strings.Split(path, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		if part == "" || part == "." {
			continue
		}
		next := filepath.Join(at, part) // ".." at the root stays there
		if part == ".." {
			at = next
			continue
		}
		info, err := os.Lstat(filepath.Join(root, next))
		if err != nil {
			return "", err
		}
		if info.Mode()&os.ModeSymlink == 0 {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: too many symbolic links", path)
		}
		target, err := os.Readlink(filepath.Join(root, next))
		if err != nil {
			return "", err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return filepath.Join(root, at), nil
}

// toolchains remembers those of the host that a Tree has used, by the compiler's
// path; looking at them takes a second.
type toolchains struct {
	sync.Mutex
	found map[string]Toolchain
	gccs  []compiler // all that are installed; nil: not looked for
}

// hostToolchain is one of this host, looked at once for each Tree.
func (t *Tree) hostToolchain(ctx context.Context, gcc string) (Toolchain, error) {
	t.toolchains.Lock()
	defer t.toolchains.Unlock()
	if found, ok := t.toolchains.found[gcc]; ok {
		return found, nil
	}
	found, err := hostToolchain(ctx, filepath.Dir(t.trees), gcc)
	if err != nil {
		return Toolchain{}, err
	}
	if t.toolchains.found == nil {
		t.toolchains.found = map[string]Toolchain{}
	}
	t.toolchains.found[gcc] = found
	return found, nil
}

// toolchain is what a commit is built with.
func (t *Tree) toolchain(ctx context.Context, hash string, o BuildOptions) (Toolchain, error) {
	if o.Toolchain.Tools == nil {
		return t.ChooseToolchain(ctx, o.Notice, hash)
	}
	if o.Toolchain.room == nil {
		return o.Toolchain, nil
	}
	// Trees before 4.16 bring along what flex and bison would make.
	age, err := t.release(ctx, hash)
	if err != nil || age != (release{}) && age.before(release{4, 16}) {
		return o.Toolchain, err
	}
	for _, name := range []string{"flex", "bison"} {
		if !o.Toolchain.has(name) {
			return Toolchain{}, o.Toolchain.missing(name)
		}
	}
	return o.Toolchain, nil
}
