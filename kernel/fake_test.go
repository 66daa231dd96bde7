package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lab/kernel/kconfig"
)

// fakeMakefile builds a "kernel" out of three C files as Kbuild would: real
// make, real compiler, the targets and variables that lab uses, and a bzImage
// whose header is a file of the tree. HOOK, if there, is run by each build.
const fakeMakefile = `
KCONFIG_CONFIG ?= .config
OBJS := $(patsubst %.c,%.o,$(wildcard src/*.c))

allnoconfig:
	@test ! -f KCONFIG_BROKEN || { echo "init/Kconfig:7: syntax error"; exit 1; }
	@echo "# Automatically generated file; DO NOT EDIT." > $(KCONFIG_CONFIG)
	@grep -v NOSUCH $(KCONFIG_ALLCONFIG) >> $(KCONFIG_CONFIG)

olddefconfig oldnoconfig:
	@echo 'CONFIG_MADE_BY="$@"' >> $(KCONFIG_CONFIG)

src/%.o: src/%.c include/all.h .config
	@echo "  CC      $@"
	@gcc -Iinclude -c -o $@ $<

bzImage: $(OBJS)
	@if test -f HOOK; then exec sh ./HOOK; fi
	@mkdir -p arch/x86/boot
	@cat header.bin $(OBJS) .config > arch/x86/boot/bzImage
	@nm $(OBJS) | grep ' T ' > System.map
	@env | sort > environment
`

// fakeHeader is the setup code of a bzImage of that version.
func fakeHeader(version string) []byte {
	b := make([]byte, 1024)
	b[offSetupSects] = 1
	binary.LittleEndian.PutUint16(b[offBootFlag:], 0xaa55)
	copy(b[offMagic:], "HdrS")
	binary.LittleEndian.PutUint16(b[offProtocol:], 0x020f)
	binary.LittleEndian.PutUint16(b[offVersion:], 0x100)
	b[offLoadFlags] = 1
	copy(b[0x300:], version+" (lab@lab) #1 SMP")
	return b
}

// repo is a git repository of a fake kernel.
type repo struct {
	t   testing.TB
	dir string
}

func newRepo(t *testing.T) repo {
	t.Helper()
	r := repo{t, filepath.Join(t.TempDir(), "linux")}
	run(t, "", "git", "init", "-q", "-b", "main", r.dir)
	r.write(map[string]string{
		"Makefile":      fakeMakefile,
		"header.bin":    string(fakeHeader("6.1.0-fake")),
		"include/all.h": "#define ALL 1\n",
		"src/a.c":       "#include \"all.h\"\nint a(void) { return ALL; }\n",
		"src/b.c":       "#include \"all.h\"\nint b(void) { return ALL; }\n",
		"src/c.c":       "#include \"all.h\"\nint c(void) { return ALL; }\n",
		"README":        "fake\n",
		".gitignore":    ".*\n*.o\n",
	})
	r.git("add", "-f", ".gitignore")
	r.commit("first")
	return r
}

func (r repo) write(files map[string]string) {
	r.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(r.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[name]), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
}

// commit commits all that is in the work tree and returns the hash.
func (r repo) commit(title string) string {
	r.t.Helper()
	r.git("add", ".")
	r.git("commit", "-q", "--allow-empty", "-m", title)
	return r.git("rev-parse", "HEAD")
}

// change commits one file's new content.
func (r repo) change(title, name, content string) string {
	r.t.Helper()
	r.write(map[string]string{name: content})
	return r.commit(title)
}

func (r repo) git(args ...string) string {
	r.t.Helper()
	return run(r.t, r.dir, "git", append([]string{"-c", "user.name=A U Thor", "-c", "user.email=author@example.org", "-c", "protocol.file.allow=always"}, args...)...)
}

func run(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func open(t testing.TB, cache, dir string) *Tree {
	t.Helper()
	tree, err := OpenTree(t.Context(), cache, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

func fragments(text string) BuildOptions {
	return BuildOptions{Fragments: []kconfig.Fragment{{Name: "test", Data: []byte(text)}}, Jobs: 2}
}

// built is what a build of a test came to.
type built struct {
	Kernel
	failure *Failure
	cached  bool
	objects []string // that were compiled
}

func build(t *testing.T, tree *Tree, commit string, o BuildOptions) built {
	t.Helper()
	b, err := tryBuild(t, tree, commit, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// lacking is what a kernel's configuration lacks of lab's guest, where it has one.
func lacking(k Kernel) ([]string, error) {
	c, modules, err := k.Configuration()
	if err != nil || c == nil {
		return nil, err
	}
	return kconfig.Guest(c, modules...), nil
}

func tryBuild(t *testing.T, tree *Tree, commit string, o BuildOptions) (b built, err error) {
	progress := o.Progress
	o.Progress = func(line string, objects, total int) {
		if name, ok := strings.CutPrefix(line, "  CC      "); ok {
			b.objects = append(b.objects, name)
		}
		if progress != nil {
			progress(line, objects, total)
		}
	}
	b.Kernel, b.failure, b.cached, err = tree.Build(t.Context(), commit, o)
	slices.Sort(b.objects)
	return b, err
}

func (b built) compiled(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(b.objects, want) {
		t.Errorf("compiled %q, want %q", b.objects, want)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// snapshot describes every file below dir: names, modes, times and content.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b bytes.Buffer
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v %v", path, info.Mode(), info.ModTime().UnixNano())
		if info.Mode().IsRegular() {
			digest, err := digestFile(path)
			if err != nil {
				return err
			}
			b.WriteString(digest)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
