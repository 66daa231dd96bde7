package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The bisects here hunt build failures in small repositories: real git, real
// make, lab's own work tree and cache, but no compiler run of minutes and no
// guest. The Makefile has the targets that lab asks for; a line "broken" in
// the file state is what does not build.
const smallMakefile = `
KCONFIG_CONFIG ?= .config
allnoconfig:
	@echo "# Automatically generated file; DO NOT EDIT." > $(KCONFIG_CONFIG)
	@if test -f resolved; then cat resolved >> $(KCONFIG_CONFIG); fi
bzImage:
	@if grep -q broken state; then echo "kernel/audit.c:1: error: broken" >&2; exit 1; fi
	@mkdir -p arch/x86/boot
	@cat header.bin binary > arch/x86/boot/bzImage
	@echo > System.map
`

// smallHeader is the setup code of a bzImage (Documentation/arch/x86/boot.rst).
func smallHeader() []byte {
	b := make([]byte, 1024)
	b[0x1f1] = 1
	binary.LittleEndian.PutUint16(b[0x1fe:], 0xaa55)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x206:], 0x020f)
	binary.LittleEndian.PutUint16(b[0x20e:], 0x100)
	b[0x211] = 1
	copy(b[0x300:], "6.1.0-small (lab@lab) #1 SMP")
	return b
}

type smallRepo struct {
	t       *testing.T
	dir     string
	commits []string // of the main line, oldest first
}

func newSmallRepo(t *testing.T) *smallRepo {
	t.Helper()
	r := &smallRepo{t: t, dir: filepath.Join(t.TempDir(), "linux")}
	r.run("", "init", "-q", "-b", "main", r.dir)
	r.write("Makefile", smallMakefile)
	r.write("header.bin", string(smallHeader()))
	r.commit("first", "fine")
	return r
}

func (r *smallRepo) write(name, content string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(content), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// commit makes a commit whose kernel has bytes of its own.
func (r *smallRepo) commit(title, state string) string {
	r.t.Helper()
	r.write("state", state+"\n")
	r.write("binary", title)
	r.git("add", ".")
	r.git("commit", "-q", "--allow-empty", "-m", title)
	hash := r.git("rev-parse", "HEAD")
	r.commits = append(r.commits, hash)
	return hash
}

func (r *smallRepo) git(args ...string) string { r.t.Helper(); return r.run(r.dir, args...) }

func (r *smallRepo) run(dir string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=Lab Test", "-c", "user.email=test@lab.invalid"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (r *smallRepo) options(good, bad string) BisectOptions {
	return BisectOptions{
		Good: []string{good}, Bad: bad, Dir: filepath.Join(r.t.TempDir(), "state"),
		Spec: Spec{Kernel: KernelSpec{Repo: r.dir, Config: []string{"tiny"}}, Symptom: Symptom{Kind: SymptomBuild}},
	}
}

func testLab(t *testing.T) *Lab {
	return &Lab{Cache: t.TempDir(), State: t.TempDir(), Version: "test", Agent: func() (string, error) { panic("no guest is wanted") }}
}

func TestBisectFindsEachCommit(t *testing.T) {
	const n = 12
	l := testLab(t)
	for culprit := 1; culprit < n; culprit += 3 {
		r := newSmallRepo(t)
		for i := 1; i < n; i++ {
			state := "fine"
			if i >= culprit {
				state = "broken"
			}
			r.commit(fmt.Sprintf("change %d", i), state)
		}
		o := r.options(r.commits[0], "main")
		b, err := l.Bisect(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if b.Culprit == nil || b.Culprit.Hash != r.commits[culprit] {
			t.Fatalf("culprit %d: %+v", culprit, b)
		}
		if b.Range != n-1 || len(b.Parents) != 1 || b.Parents[0] != r.commits[culprit-1] {
			t.Errorf("range %d, parents %v", b.Range, b.Parents)
		}
		replayed(t, r, b.Log, b.Culprit.Hash)
	}
}

// replayed has git itself replay a log and name the same commit.
func replayed(t *testing.T, r *smallRepo, log, culprit string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bisect.log")
	if err := os.WriteFile(file, []byte(log), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := r.git("bisect", "replay", file); !strings.Contains(out, culprit+" is the first bad commit") {
		t.Errorf("git bisect replay says %s\nof %s", out, log)
	}
	r.git("bisect", "reset")
}

func TestBisectBehindAMerge(t *testing.T) {
	r := newSmallRepo(t)
	base := r.commits[0]
	r.git("checkout", "-q", "-b", "side")
	for i := range 5 {
		state := "fine"
		if i >= 2 {
			state = "broken"
		}
		r.commit(fmt.Sprintf("side %d", i), state)
	}
	culprit := r.commits[3]
	r.git("checkout", "-q", "main")
	for i := range 4 {
		r.write(fmt.Sprintf("doc%d", i), "text")
		r.git("add", ".")
		r.git("commit", "-q", "-m", fmt.Sprintf("main %d", i))
	}
	r.git("merge", "-q", "--no-edit", "side")
	b, err := testLab(t).Bisect(t.Context(), r.options(base, "main"))
	if err != nil {
		t.Fatal(err)
	}
	if b.Culprit == nil || b.Culprit.Hash != culprit {
		t.Fatalf("found %+v, want %s", b.Culprit, culprit)
	}
	replayed(t, r, b.Log, culprit)
}

// TestBisectInfersFromSameBytes wants a kernel that has the bytes of a tested
// one to get its verdict, and the journal to say so.
func TestBisectInfersFromSameBytes(t *testing.T) {
	r := newSmallRepo(t)
	for i := range 8 {
		r.write("doc", fmt.Sprint(i))
		r.git("add", ".")
		r.git("commit", "-q", "-m", fmt.Sprintf("doc %d", i))
	}
	culprit := r.commit("broken", "broken")
	b, err := testLab(t).Bisect(t.Context(), r.options(r.commits[0], "main"))
	if err != nil {
		t.Fatal(err)
	}
	if b.Culprit == nil || b.Culprit.Hash != culprit {
		t.Fatalf("found %+v, want %s", b.Culprit, culprit)
	}
	for _, x := range b.Tested {
		if x.Role == RoleStep && (x.Inferred != r.commits[0] || x.Mark != Good || x.Dir != "") {
			t.Errorf("%s: inferred from %q, %s, run in %q", x.Commit.Title, x.Inferred, x.Mark, x.Dir)
		}
		if x.Role != RoleStep && x.Inferred != "" {
			t.Errorf("%s %s was inferred, though it is to be seen", x.Role, x.Commit.Title)
		}
	}
}

// TestBisectGoesOn stops a bisect after each of its events in turn, and wants
// the answer that it has without, and nothing tested twice.
func TestBisectGoesOn(t *testing.T) {
	r := newSmallRepo(t)
	for i := 1; i < 10; i++ {
		state := "fine"
		if i >= 6 {
			state = "broken"
		}
		r.commit(fmt.Sprintf("change %d", i), state)
	}
	o := r.options(r.commits[0], "main")
	l := testLab(t)
	stops := 0
	for {
		ctx, cancel := context.WithCancel(t.Context())
		l.Progress.Line = func(s string) {
			if strings.HasPrefix(s, "  good: ") || strings.HasPrefix(s, "  bad: ") {
				cancel()
			}
		}
		b, err := l.Bisect(ctx, o)
		cancel()
		if err != nil {
			stops++
			if stops > 20 {
				t.Fatalf("no end: %v", err)
			}
			continue
		}
		if b.Culprit == nil || b.Culprit.Hash != r.commits[6] {
			t.Fatalf("found %+v", b)
		}
		var seen []string
		for _, x := range b.Tested {
			seen = append(seen, x.Commit.Hash+fmt.Sprint(x.Role == RoleConfirm))
		}
		slices.Sort(seen)
		if len(slices.Compact(slices.Clone(seen))) != len(seen) || stops < 4 {
			t.Errorf("%d stops, tested %v", stops, seen)
		}
		break
	}

	// Once more: the answer stands, nothing is tested.
	before, err := os.ReadFile(filepath.Join(o.Dir, "journal.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	l.Progress.Line = nil
	if b, err := l.Bisect(t.Context(), o); err != nil || b.Culprit == nil || b.Culprit.Hash != r.commits[6] {
		t.Errorf("again: %+v, %v", b, err)
	}
	if after, err := os.ReadFile(filepath.Join(o.Dir, "journal.jsonl")); err != nil || string(after) != string(before) {
		t.Errorf("the journal grew from %q to %q (%v)", before, after, err)
	}

	// Another bisect does not get into the same folder.
	other := o
	other.Good = []string{r.commits[1]}
	if _, err := l.Bisect(t.Context(), other); err == nil || !strings.Contains(err.Error(), "is another one") {
		t.Errorf("another bisect in the same folder: %v", err)
	}
}

func TestBisectRefusesEndsThatAreNot(t *testing.T) {
	r := newSmallRepo(t)
	r.commit("one", "broken")
	r.commit("two", "broken")
	r.commit("three", "fine")
	l := testLab(t)
	b, err := l.Bisect(t.Context(), r.options(r.commits[1], r.commits[2]))
	if err != nil || b.Culprit != nil || !strings.Contains(b.Unclear, "the good end "+r.commits[1][:12]) || !strings.Contains(b.Unclear, "not good but bad") {
		t.Errorf("both bad: %+v, %v", b, err)
	}
	b, err = l.Bisect(t.Context(), r.options(r.commits[0], r.commits[3]))
	if err != nil || b.Culprit != nil || !strings.Contains(b.Unclear, "the bad end "+r.commits[3][:12]) {
		t.Errorf("both good: %+v, %v", b, err)
	}
}

// TestBisectOfASymptomOlderThanGood: a side branch was cut where the symptom
// was, before it went away on the main line. Its first commit looks guilty, but
// what it was cut from has the symptom too.
func TestBisectOfASymptomOlderThanGood(t *testing.T) {
	r := newSmallRepo(t)
	r.commit("old", "broken")
	r.git("branch", "side")
	r.commit("repaired", "fine")
	r.git("checkout", "-q", "side")
	r.write("doc", "text")
	r.git("add", ".")
	r.git("commit", "-q", "-m", "on the side")
	r.git("checkout", "-q", "main")
	r.git("merge", "-q", "--no-commit", "side")
	r.commit("merge", "broken")
	b, err := testLab(t).Bisect(t.Context(), r.options(r.commits[2], "main"))
	if err != nil {
		t.Fatal(err)
	}
	if b.Culprit != nil || !strings.Contains(b.Unclear, "so is its parent "+r.commits[1][:12]) {
		t.Errorf("culprit %+v, unclear %q", b.Culprit, b.Unclear)
	}
}
