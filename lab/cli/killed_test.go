package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lab/lab"
)

// killedMakefile notes in a file every kernel that is built.
const killedMakefile = `KCONFIG_CONFIG ?= .config
allnoconfig:
	@echo "# Automatically generated file; DO NOT EDIT." > $(KCONFIG_CONFIG)
bzImage:
	@cat state number >> %s
	@if grep -q broken state; then echo "kernel/audit.c:1: error: broken" >&2; exit 1; fi
	@mkdir -p arch/x86/boot
	@cat header.bin state number > arch/x86/boot/bzImage
	@echo > System.map
`

// killedRepo makes a history of so many commits, which do not build from the
// culprit on.
func killedRepo(t *testing.T, home string, commits, culprit int) (built string) {
	t.Helper()
	repo := filepath.Join(home, "linux")
	built = filepath.Join(home, "built")
	header := make([]byte, 1024) // a bzImage's: Documentation/arch/x86/boot.rst
	copy(header[0x1f1:], "\x01")
	copy(header[0x1fe:], "\x55\xaa")
	copy(header[0x202:], "HdrS\x0f\x02")
	copy(header[0x20e:], "\x00\x01")
	copy(header[0x211:], "\x01")
	copy(header[0x300:], "6.1.0-small (lab@lab) #1 SMP")
	if err := os.MkdirAll(repo, 0o755); err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer // for git fast-import
	file := func(name string, data []byte) {
		fmt.Fprintf(&stream, "M 644 inline %s\ndata %d\n%s\n", name, len(data), data)
	}
	for i := range commits {
		fmt.Fprintf(&stream, "commit refs/heads/main\nmark :%d\ncommitter Lab Test <test@lab.invalid> %d +0000\ndata <<E\nchange %d\nE\n", i+1, 1_700_000_000+i, i)
		if i == 0 {
			file("Makefile", fmt.Appendf(nil, killedMakefile, built))
			file("header.bin", header)
		}
		state := "fine"
		if i >= culprit {
			state = "broken"
		}
		file("state", []byte(state+"\n"))
		if i != culprit { // it can be reverted and applied by itself
			file("number", fmt.Appendf(nil, "%d\n", i))
		}
	}
	fmt.Fprintf(&stream, "reset refs/tags/good\nfrom :1\n")
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"fast-import", "--quiet"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = repo
		if args[0] == "fast-import" {
			cmd.Stdin = &stream
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return built
}

var killedArgs = []string{"--quiet", "bisect", "--repo", "linux", "--good", "good", "--bad", "main", "--config", "tiny", "--symptom", "build", "--dir", "state", "--json"}

// TestBisectKilled kills bisects with SIGKILL at a hundred random instants in all.
// Each gets to its end between two of them.
func TestBisectKilled(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	killedRepo(t, plain, killedCommits, killedCulprit)
	stdout, _ := runLab(t, plain, 0, killedArgs...)
	var want lab.Bisection
	if err := json.Unmarshal([]byte(stdout), &want); err != nil {
		t.Fatal(err)
	}
	if p := want.Proof; p == nil || p.Reverted == nil || p.Reverted.Good != 1 || p.Applied == nil || p.Applied.Bad != 1 {
		t.Fatalf("proof: %q", p.Text(nil))
	}
	random := rand.New(rand.NewPCG(5, 100))
	for kills := 0; kills < 100; {
		kills += killBisect(t, want, random)
	}
}

const killedCommits, killedCulprit = 200, 77

// killBisect kills a bisect until it gets to its end, and wants the answer that it
// has when nobody does, its proof included, with no commit tested twice, and none
// built twice but the one that was being built.
func killBisect(t *testing.T, want lab.Bisection, random *rand.Rand) (kills int) {
	home := t.TempDir()
	built := killedRepo(t, home, killedCommits, killedCulprit)
	var found lab.Bisection
	for {
		cmd := labCmd(home, killedArgs...)
		var out, said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The instants fall more densely than a run gets forward, and come
		// later from time to time, so that it does.
		most := 40 + 5*kills/2
		kill := time.AfterFunc(time.Duration(1+random.IntN(most))*time.Millisecond, func() { cmd.Process.Kill() })
		err := cmd.Wait()
		kill.Stop()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGKILL {
			kills++
			continue
		}
		if err != nil {
			t.Fatalf("after %d kills: %v\n%s", kills, err, said.String())
		}
		if err := json.Unmarshal(out.Bytes(), &found); err != nil {
			t.Fatal(err)
		}
		break
	}
	if found.Culprit == nil || found.Culprit.Title != fmt.Sprintf("change %d", killedCulprit) {
		t.Fatalf("after %d kills: %+v", kills, found)
	}
	proved := func(p *lab.Proof) string {
		if p == nil || p.Reverted == nil || p.Applied == nil {
			return "nothing"
		}
		return fmt.Sprint(p.Reverted.Good, p.Reverted.Verdict, p.Applied.Bad, p.Applied.Verdict)
	}
	if got := proved(found.Proof); got != proved(want.Proof) {
		t.Errorf("after %d kills the proof is %s, want %s", kills, got, proved(want.Proof))
	}
	steps := func(b lab.Bisection) (list []string) {
		for _, r := range b.Tested {
			list = append(list, fmt.Sprintf("%s %s: %s, %s", r.Role, r.Commit.Title, r.Mark, r.Reason))
		}
		return list
	}
	if d := cmp.Diff(steps(want), steps(found)); d != "" {
		t.Errorf("after %d kills (-without +with):\n%s", kills, d)
	}
	tested := map[string]int{}
	for _, r := range found.Tested {
		tested[fmt.Sprint(r.Commit.Hash, r.Role == lab.RoleConfirm)]++
	}
	for what, n := range tested {
		if n > 1 {
			t.Errorf("%s was tested %d times", what, n)
		}
	}
	data, err := os.ReadFile(built)
	if err != nil {
		t.Fatal(err)
	}
	builds := len(strings.Fields(string(data))) / 2
	if builds > len(want.Tested)+2+kills { // two for the proof
		t.Errorf("%d builds for %d tests and %d kills", builds, len(want.Tested), kills)
	}
	journal, err := os.ReadFile(filepath.Join(home, "state", "journal.jsonl"))
	if n := bytes.Count(journal, []byte(`"event":"proof"`)); err != nil || n != 2 {
		t.Errorf("%d tests prove it, %v", n, err)
	}
	t.Logf("%d kills, %d tests, %d builds", kills, len(found.Tested), builds)
	if kills < 5 {
		t.Errorf("it was killed %d times only", kills)
	}
	return kills
}

// TestBisectManyKilled is that with several commands at a time, each time another
// number of them.
func TestBisectManyKilled(t *testing.T) {
	home := t.TempDir()
	const commits, culprit = 60, 23
	killedRepo(t, home, commits, culprit)
	random := rand.New(rand.NewPCG(5, 3))
	kills := 0
	var found lab.Bisection
	for {
		cmd := labCmd(home, "--quiet", "bisect", "--repo", "linux", "--good", "good", "--bad", "main", "--steady", "--dir", "state", "--json",
			"--jobs", fmt.Sprint(1+random.IntN(4)), "--run", "grep -q fine state")
		var out, said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Duration(1+random.IntN(100+10*kills))*time.Millisecond, func() { cmd.Process.Kill() })
		err := cmd.Wait()
		kill.Stop()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGKILL {
			kills++
			continue
		}
		if err != nil {
			t.Fatalf("after %d kills: %v\n%s\n%s", kills, err, out.String(), said.String())
		}
		if err := json.Unmarshal(out.Bytes(), &found); err != nil {
			t.Fatal(err)
		}
		break
	}
	if found.Culprit == nil || found.Culprit.Title != fmt.Sprintf("change %d", culprit) {
		t.Fatalf("after %d kills: %+v", kills, found)
	}
	tested := map[string]bool{}
	for _, r := range found.Tested {
		if key := r.Role + r.Commit.Hash; tested[key] {
			t.Errorf("%s was tested twice", r.Commit.Title)
		} else {
			tested[key] = true
		}
	}
	t.Logf("%d kills, %d tests", kills, len(found.Tested))
	if kills < 3 {
		t.Errorf("it was killed %d times only", kills)
	}
}
