package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"lab/kernel"
	"lab/kernel/qemu"
	"lab/lab/bundle"
	"lab/lab/report"
	"lab/oci"
)

// The members of a bundle that are not of one kernel or one run.
const (
	memberDisk      = "inputs/disk.img.gz"
	memberInitramfs = "inputs/initramfs.gz"
	memberSource    = "inputs/source.bundle"
	memberPatch     = "bisect/culprit.patch"
	memberHunks     = "bisect/hunks.patch"
	memberPair      = "bisect/pair.json"
	memberGraph     = "bisect/graph.jsonl"
)

// pack gathers a bundle.
type pack struct {
	*Lab
	found    Bisection
	has      BundleOptions
	from     *bisection // where the kernels come from
	manifest bundle.Manifest
	files    []bundle.File
	good     Trial // the trials that tell the two kernels apart
	bad      Trial

	temporary string // folder that is removed when the bundle is written; empty for none
}

// BundleOptions say what a bundle has.
type BundleOptions struct {
	// Slim leaves the guest's disk out, which is made of the images again: by lab,
	// and not by the script.
	Slim bool
	// Vmlinux adds the kernels with their symbols, which are built once more for it.
	Vmlinux bool
	// Source adds the commits that were searched, from the good ends to the bad one.
	Source bool
	// Record adds a recording of a run of each kernel, which is made for it.
	Record bool
}

// WriteBundle writes the bundle of a bisection that found its commit. The
// file appears whole or not at all.
func (l *Lab) WriteBundle(ctx context.Context, found Bisection, o BisectOptions, has BundleOptions, path string) error {
	if found.Culprit == nil {
		return fmt.Errorf("write bundle %s: there is no first bad commit to tell of", path)
	}
	l.Progress.Show("writing %s", path)
	defer l.Progress.Show("")
	p := &pack{Lab: l, found: found, has: has}
	defer func() {
		if p.temporary != "" {
			os.RemoveAll(p.temporary)
		}
	}()
	if err := p.gather(ctx, o); err != nil {
		return fmt.Errorf("write bundle %s: %w", path, err)
	}
	out, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644))
	if err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	defer out.Cleanup()
	if err := bundle.Write(ctx, out, p.manifest, p.files); err != nil {
		return err
	}
	if err := out.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

func (p *pack) gather(ctx context.Context, o BisectOptions) error {
	s := o.Spec
	if err := s.Validate(); err != nil {
		return err
	}
	p.from = &bisection{Lab: p.Lab, spec: s}
	if err := p.from.openAxis(ctx, o); err != nil {
		return err
	}
	defer p.from.Close()
	if err := p.from.chooseToolchain(ctx, p.found.Good, p.found.Bad); err != nil {
		return err
	}
	if sets := p.from.settings; sets != nil {
		p.from.tree = sets.kernel.tree // after the toolchain was chosen, which each kernel does here
	}
	g, err := p.prepare(ctx, s, p.found.Images)
	if err != nil {
		return err
	}
	before := p.found.Good[0] // where no parent could be judged
	if len(p.found.Parents) > 0 {
		if before, err = p.from.resolve(ctx, p.found.Parents[0]); err != nil {
			return err
		}
	}
	if p.good, err = p.run(bundle.RoleGood, before.Hash); err != nil {
		return err
	}
	if p.bad, err = p.run(bundle.RoleBad, p.found.Culprit.Hash); err != nil {
		return err
	}
	if err := p.describe(ctx, s, g); err != nil {
		return err
	}
	if err := p.patches(ctx); err != nil {
		return err
	}
	if err := p.kernel(ctx, g, bundle.RoleGood, before, p.good); err != nil {
		return err
	}
	if err := p.kernel(ctx, g, bundle.RoleBad, *p.found.Culprit, p.bad); err != nil {
		return err
	}
	if err := p.images(ctx); err != nil {
		return err
	}
	if !p.has.Slim {
		p.manifest.Disk.Member = memberDisk
		p.files = append(p.files, bundle.File{Name: memberDisk, Source: g.disk.Path, Gzip: true})
	}
	if p.from.pool != nil || p.from.settings != nil {
		return p.tell(nil)
	}
	if p.has.Source {
		if err := p.source(ctx); err != nil {
			return err
		}
	}
	patch, err := p.from.tree.Show(ctx, p.found.Culprit.Hash)
	if err != nil {
		return err
	}
	p.files = append(p.files, bundle.File{Name: memberPatch, Data: patch})
	return p.tell(patch)
}

// source adds the commits that were searched.
func (p *pack) source(ctx context.Context) error {
	dir, err := p.temp()
	if err != nil {
		return err
	}
	var good []string
	for _, c := range p.found.Good {
		good = append(good, c.Hash)
	}
	file := filepath.Join(dir, "source")
	p.manifest.Source = memberSource
	p.files = append(p.files, bundle.File{Name: memberSource, Source: file})
	return p.from.tree.Bundle(ctx, good, p.found.Bad.Hash, file)
}

// describe fills in the manifest's typed fields.
func (p *pack) describe(ctx context.Context, s Spec, g *guest) error {
	digest, err := g.disk.Digest(ctx)
	if err != nil {
		return err
	}
	m := &p.manifest
	m.Lab = p.Version
	m.Platform = "linux/" + runtime.GOARCH
	m.Test = s.Test
	m.Symptom = bundle.Symptom(s.Symptom)
	m.Machine = bundle.Machine{
		Accel: p.bad.Accel, QEMU: p.bad.QEMU, CPU: qemu.DefaultCPU, Memory: s.Machine.Memory, CPUs: s.Machine.CPUs,
		Cmdline: s.Machine.Cmdline, Modules: s.Kernel.Modules, Clock: s.Test.Epoch.UTC(), BootTimeout: bundle.Duration(s.Machine.BootTimeout),
		Exact: s.Machine.Exact,
	}
	for _, i := range g.images {
		i.Reference = publicReference(i.Reference)
		m.Images = append(m.Images, i)
	}
	m.Disk = bundle.Disk{Digest: digest, Size: g.disk.Size, Free: s.Free}
	if r := p.found.Rate; r != nil && p.found.Runs[0].Good > 0 {
		m.Rate = min(.99, max(.01, math.Round(100*r.Mean)/100))
	}
	c := p.found.Culprit
	m.Culprit = &bundle.Culprit{Commit: c.Hash, Title: c.Title, Author: c.Author, Date: c.Date, Patch: memberPatch}
	if f := p.found.Flip; f != nil {
		m.Culprit = &bundle.Culprit{Commit: p.bad.Kernel.Commit, Title: c.Title, Options: f.lines()}
	}
	if bad := p.found.FirstBad(); bad != nil {
		m.Culprit = &bundle.Culprit{Package: bad.inBundle(), Title: c.Title}
	}
	m.Host = host()
	return nil
}

// trial gets a kernel as it was tested.
func (p *pack) trial(ctx context.Context, c kernel.Commit) (Trial, error) {
	sets := p.from.settings
	if sets == nil {
		return p.from.trial(ctx, c)
	}
	for _, t := range p.found.Tested {
		if t.Commit.Hash == c.Hash {
			return sets.try(ctx, sets.set(t.Set))
		}
	}
	return Trial{}, fmt.Errorf("no test of %s is on record", c.Title)
}

// kernel adds the kernel that a trial was made with, and how it was built.
func (p *pack) kernel(ctx context.Context, g *guest, role string, c kernel.Commit, tried Trial) error {
	t, err := p.trial(ctx, c)
	if err != nil {
		return err
	}
	k := bundle.Kernel{Role: role, Commit: c.Hash, Title: c.Title, Release: t.Kernel.Release, Compiler: t.Kernel.Compiler, Toolchain: bundledToolchain(t.Kernel.Toolchain)}
	if p.from.settings != nil {
		k.Commit = t.Kernel.Commit
	}
	if made := p.found.kernel(c.Hash); made != nil {
		k.Commit, k.Package = "", made.inBundle()
	}
	if t.Failure != nil {
		return fmt.Errorf("%s does not build any more: %s", short(c.Hash), t.Detail)
	}
	if t.Kernel.Digest != tried.Kernel.Digest {
		return fmt.Errorf("%s builds to another kernel than the one that was tested: did the compiler change? Remove %s to begin again", short(c.Hash), p.found.Dir)
	}
	dir := path.Join("kernels", role)
	add := func(name, source string) string {
		if source == "" {
			return ""
		}
		p.files = append(p.files, bundle.File{Name: path.Join(dir, name), Source: source})
		return path.Join(dir, name)
	}
	if err := p.onTop(ctx, &k, dir, t.Kernel.OnTop); err != nil {
		return err
	}
	k.Digest = t.Kernel.Digest
	k.Image = add("bzImage", t.Kernel.Image)
	k.Config = add("config", t.Kernel.Config)
	add("System.map", t.Kernel.SystemMap)
	if t.Kernel.Log != "" {
		data, err := os.ReadFile(t.Kernel.Log)
		if err != nil {
			return fmt.Errorf("read build log: %w", err)
		}
		k.Log = path.Join(dir, "build.log")
		p.files = append(p.files, bundle.File{Name: k.Log, Data: p.scrub(data)})
	}
	if k.Initramfs, err = p.initramfs(g, role, t.Kernel); err != nil {
		return err
	}
	if p.has.Vmlinux && p.from.tree != nil {
		if k.Vmlinux, err = p.vmlinux(ctx, c, t.Kernel.Digest, dir); err != nil {
			return err
		}
	}
	p.manifest.Kernels = append(p.manifest.Kernels, k)
	if p.has.Record {
		return p.record(ctx, g, role, t)
	}
	return nil
}

// vmlinux adds a kernel with its symbols.
func (p *pack) vmlinux(ctx context.Context, c kernel.Commit, digest, dir string) (*bundle.Compressed, error) {
	into, err := p.temp()
	if err != nil {
		return nil, err
	}
	p.Progress.Show("building %s once more, for its vmlinux", short(c.Hash))
	file := filepath.Join(into, c.Hash)
	if err := p.from.tree.Vmlinux(ctx, c.Hash, p.from.options, digest, file); err != nil {
		return nil, err
	}
	v := &bundle.Compressed{Member: path.Join(dir, "vmlinux.gz")}
	if v.Digest, err = digestOf(file); err != nil {
		return nil, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("add vmlinux: %w", err)
	}
	v.Size = info.Size()
	p.files = append(p.files, bundle.File{Name: v.Member, Source: file, Gzip: true})
	return v, nil
}

// temp is a folder for files that are in no other place.
func (p *pack) temp() (string, error) {
	if p.temporary == "" {
		dir, err := os.MkdirTemp("", "lab-bundle-")
		if err != nil {
			return "", fmt.Errorf("write bundle: %w", err)
		}
		p.temporary = dir
	}
	return p.temporary, nil
}

// patches adds what is put on top of commits: the files that were given, and the
// picks as patches.
func (p *pack) patches(ctx context.Context) error {
	add := func(name, commit, file string, data []byte) {
		sum := sha256.Sum256(data)
		member := path.Join("inputs/patches", fmt.Sprintf("%02d-%s", len(p.manifest.Patches)+1, file))
		p.manifest.Patches = append(p.manifest.Patches, bundle.Patch{Name: name, Commit: commit, Digest: "sha256:" + hex.EncodeToString(sum[:]), Member: member})
		p.files = append(p.files, bundle.File{Name: member, Data: data})
	}
	for _, pick := range p.from.options.Picks {
		data, err := p.from.tree.Show(ctx, pick.Commit.Hash)
		if err != nil {
			return err
		}
		add(pick.Commit.Title, pick.Commit.Hash, fmt.Sprintf("pick-%.12s.patch", pick.Commit.Hash), data)
	}
	for _, patch := range p.from.options.Patches {
		add(patch.Name, "", memberName(strings.TrimSuffix(patch.Name, ".patch"))+".patch", patch.Data)
	}
	return nil
}

// memberName makes a part of a member's name of a file's.
func memberName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.') {
			return r
		}
		return '_'
	}, name)
	return name[:min(len(name), 40)]
}

// onTop adds what a kernel had on top of its commit.
func (p *pack) onTop(ctx context.Context, k *bundle.Kernel, dir string, on []kernel.Addition) error {
	for i, a := range on { // in the order of the patches
		if a.State == kernel.Applied {
			k.Applied = append(k.Applied, p.manifest.Patches[i].Member)
		}
	}
	if len(k.Applied) == 0 {
		return nil
	}
	diff, err := p.from.tree.OnTopDiff(ctx, k.Commit, p.from.options)
	if err != nil {
		return err
	}
	k.OnTop = path.Join(dir, "on-top.patch")
	p.files = append(p.files, bundle.File{Name: k.OnTop, Data: diff})
	return nil
}

// initramfs adds a kernel's. Those of kernels without modules are one.
func (p *pack) initramfs(g *guest, role string, k kernel.Kernel) (bundle.Compressed, error) {
	var b bytes.Buffer
	if err := g.initramfs(&b, k); err != nil {
		return bundle.Compressed{}, err
	}
	sum := sha256.Sum256(b.Bytes())
	i := bundle.Compressed{Member: memberInitramfs, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(b.Len())}
	if len(k.Modules) > 0 {
		i.Member = path.Join("kernels", role, "initramfs.gz")
	}
	if !slices.ContainsFunc(p.files, func(f bundle.File) bool { return f.Name == i.Member }) {
		p.files = append(p.files, bundle.File{Name: i.Member, Data: b.Bytes(), Gzip: true})
	}
	return i, nil
}

// scrub takes the places of this machine out of a text.
func (p *pack) scrub(data []byte) []byte {
	data = bytes.ReplaceAll(data, []byte(p.Cache), []byte("$CACHE"))
	if home, err := os.UserHomeDir(); err == nil && len(home) > 1 {
		data = bytes.ReplaceAll(data, []byte(home), []byte("$HOME"))
	}
	return data
}

// run adds what the last test of a commit saw.
func (p *pack) run(role, commit string) (Trial, error) {
	var tested Tested
	want := map[string]Mark{bundle.RoleGood: Good, bundle.RoleBad: Bad}[role]
	for _, t := range p.found.Tested {
		// The last run, and of a test that fails at times the last that shows it.
		if t.Commit.Hash == commit && t.Dir != "" && (t.Mark == want || tested.Mark != want) && (!t.Restored || tested.Mark != want) {
			tested = t
		}
	}
	if tested.Role == "" && slices.ContainsFunc(p.found.Tested, func(t Tested) bool { return t.Role == RoleHand && t.Commit.Hash == commit }) {
		return Trial{}, fmt.Errorf("%s was said by hand to be what it is, so there is no run of it to show: take that back with lab bisect undo, and let it be tested", short(commit))
	}
	if tested.Dir == "" {
		return Trial{}, fmt.Errorf("no run of %s is on record", short(commit))
	}
	t, err := p.saved(role, filepath.Join(p.found.Dir, tested.Dir), path.Join("runs", role+"-1"))
	if err == nil {
		run := &p.manifest.Runs[len(p.manifest.Runs)-1]
		run.Verdict, run.Reason = string(tested.Mark), tested.Reason
	}
	return t, err
}

// saved adds a run that was saved in a folder to another one of the bundle. Its verdict is
// the caller's to add.
func (p *pack) saved(role, from, to string) (Trial, error) {
	t, err := readTrial(filepath.Join(from, trialFile))
	if err != nil {
		return Trial{}, err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return Trial{}, fmt.Errorf("read run: %w", err)
	}
	for _, e := range entries {
		if e.Name() != trialFile && e.Name() != recordingFile {
			p.files = append(p.files, bundle.File{Name: path.Join(to, e.Name()), Source: filepath.Join(from, e.Name())})
		}
	}
	public := t
	public.Kernel = kernel.Kernel{Release: t.Kernel.Release, Commit: t.Kernel.Commit, Digest: t.Kernel.Digest, Compiler: t.Kernel.Compiler, Missing: t.Kernel.Missing, OnTop: t.Kernel.OnTop}
	if made := t.Kernel.Toolchain; made != nil {
		of := made.Public()
		public.Kernel.Toolchain = &of
	}
	data, err := json.MarshalIndent(public, "", "  ")
	if err != nil {
		return Trial{}, fmt.Errorf("encode trial: %w", err)
	}
	p.files = append(p.files, bundle.File{Name: path.Join(to, trialFile), Data: append(data, '\n')})
	p.manifest.Runs = append(p.manifest.Runs, bundle.Run{
		Role: role, End: string(t.End), Exit: exitOf(t), Dir: to,
	})
	for name, text := range t.streams() {
		if *text, err = os.ReadFile(filepath.Join(from, name)); err != nil && !os.IsNotExist(err) {
			return Trial{}, fmt.Errorf("read run: %w", err)
		}
	}
	return t, nil
}

// tell adds what people and programs read: the report, the answer as JSON, the
// bisect log, the journal and the script.
func (p *pack) tell(patch []byte) error {
	answer := p.found
	answer.Dir, answer.Images = "", p.manifest.Images
	if h := answer.Hunks; h != nil {
		of := *h
		of.Dir, of.Images = "", p.manifest.Images
		answer.Hunks = &of
		if of.Culprit != nil {
			p.files = append(p.files, bundle.File{Name: memberHunks, Data: []byte(of.Flip.Patch)})
		}
	}
	answer.Kernels = slices.Clone(answer.Kernels)
	for i := range answer.Kernels { // without the folders of this machine
		ref := publicReference(answer.Kernels[i].Reference)
		if !oci.HasTransport(ref) {
			ref = filepath.Base(ref)
		}
		answer.Kernels[i].Reference = ref
	}
	result, err := json.MarshalIndent(answer, "", "  ")
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	var journal bytes.Buffer
	for _, t := range answer.Tested {
		line, err := json.Marshal(t)
		if err != nil {
			return fmt.Errorf("encode result: %w", err)
		}
		journal.Write(append(line, '\n'))
	}
	script, err := p.script()
	if err != nil {
		return err
	}
	if pair := answer.Pair; pair != nil {
		data, err := json.MarshalIndent(pair, "", "  ")
		if err != nil {
			return fmt.Errorf("encode pair: %w", err)
		}
		p.files = append(p.files, bundle.File{Name: memberPair, Data: append(data, '\n')})
	}
	graph, err := p.graph()
	if err != nil {
		return err
	}
	told, err := document(p.manifest, answer, p.good, p.bad, patch, graph)
	if err != nil {
		return err
	}
	text, err := report.Render(told, report.FormText)
	if err != nil {
		return err
	}
	page, err := report.Render(told, report.FormHTML)
	if err != nil {
		return err
	}
	if p.found.Log != "" {
		p.files = append(p.files, bundle.File{Name: "bisect/bisect.log", Data: []byte(p.found.Log)})
	}
	p.files = append(p.files,
		bundle.File{Name: "REPORT.txt", Data: text},
		bundle.File{Name: "report.html", Data: page},
		bundle.File{Name: "result.json", Data: append(result, '\n')},
		bundle.File{Name: "reproduce.sh", Data: script, Executable: true},
		bundle.File{Name: "bisect/tested.jsonl", Data: journal.Bytes()})
	return nil
}

// graph adds the commits of the bisect with their verdicts, shortened as lab bisect
// visualize does. Sets of differences are in no order that could be drawn.
func (p *pack) graph() ([]report.Node, error) {
	if p.found.Flip != nil {
		return nil, nil
	}
	s, err := OpenSaved(p.found.Dir)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	nodes := s.Graph(false)
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for _, n := range nodes {
		if err := e.Encode(n); err != nil {
			return nil, fmt.Errorf("encode graph: %w", err)
		}
	}
	p.files = append(p.files, bundle.File{Name: memberGraph, Data: b.Bytes()})
	return nodes, nil
}

// knownSkips says of the known breakages how many commits they kept from being
// built.
func knownSkips(tested []Tested) []string {
	var kinds []string
	count := map[string]int{}
	for _, t := range tested {
		if t.Known != "" && t.Mark == Skip {
			if count[t.Known]++; count[t.Known] == 1 {
				kinds = append(kinds, t.Known)
			}
		}
	}
	var lines []string
	for _, kind := range kinds {
		what := kind // of a newer lab
		if b, ok := kernel.KnownBreakage(kind); ok {
			what = b.String()
		}
		lines = append(lines, plural(count[kind], "commit")+": "+what)
	}
	return lines
}

// script renders reproduce.sh.
func (p *pack) script() ([]byte, error) {
	m := p.manifest
	return bundle.Script{Good: standalone(m, bundle.RoleGood), Bad: standalone(m, bundle.RoleBad)}.Render(m)
}

// standalone gives QEMU's arguments for a kernel of a bundle where that is unpacked:
// the same machine, with plain files and standard output in the place of lab's
// sockets.
func standalone(m bundle.Manifest, role string) []string {
	k, _ := m.Kernel(role)
	machine := qemu.Machine{
		Accel: "tcg", CPU: m.Machine.CPU, Memory: m.Machine.Memory, CPUs: m.Machine.CPUs,
		Kernel: k.Image, Initrd: bundle.InitramfsPath, Cmdline: cmdline(m.Machine.Cmdline),
		Disks: []qemu.Disk{{Path: bundle.DiskPath}}, Clock: m.Machine.Clock,
	}
	return machine.StandaloneArgs()
}

// publicReference is an image's reference without the folders of this machine.
func publicReference(ref string) string {
	if transport, rest, _ := strings.Cut(ref, ":"); transport != "docker" && oci.HasTransport(ref) {
		return transport + ":" + filepath.Base(rest)
	}
	return ref
}

// host describes this machine without naming anybody or any place on it.
func host() bundle.Host {
	var h bundle.Host
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	h.CPU = fieldOf("/proc/cpuinfo", "model name", ":")
	h.System = strings.Trim(fieldOf("/etc/os-release", "PRETTY_NAME", "="), `"`)
	return h
}

// fieldOf gives the value of the first line "key SEP value" of a small file.
func fieldOf(name, key, sep string) string {
	data, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if k, v, ok := strings.Cut(line, sep); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
