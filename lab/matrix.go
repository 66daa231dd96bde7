package lab

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"lab/kernel"
	"lab/kernel/kconfig"
	"lab/kernel/qemu"
	"lab/lab/report"
	"lab/oci"
)

// MatrixOptions say what is tested with what.
type MatrixOptions struct {
	// Spec is what all cells have in common. Of its kernel, File and Commit are not used.
	Spec Spec
	// Kernels are references of ready-made kernels, as [Lab.Packages] takes them, and
	// Commits revisions of Spec.Kernel.Repo: together they are one axis.
	Kernels, Commits []string
	// Images are references of the image under test, in the place of what Spec.Images
	// has under the name of the test's container; ranges of tags and patterns, too.
	Images []string
	// Around are the values of what else may differ, by the names of MatrixAxes.
	Around map[string][]string
	Runs   int    // of each cell; 0 is one
	Jobs   int    // how many cells are booted at the same time; 0 is one
	Dir    string // where the state is kept; empty is a folder of Lab.State
}

// A MatrixAxis is one kind of setting around kernel and image.
type MatrixAxis struct {
	Name   string // of the values in MatrixOptions.Around
	Noun   string // as people say it
	Phrase string // how a sentence has a value
	None   string // what an empty value is called
	// set has a trial be as the value says. The spec shares its lists with those of
	// other cells.
	set func(s *Spec, value string) error
}

// MatrixAxes are all of these, in the order in which they are told.
var MatrixAxes = []MatrixAxis{
	{Name: "cmdline", Noun: "command line", Phrase: "with %s", None: "no options", set: func(s *Spec, value string) error {
		s.Machine.Cmdline = strings.TrimSpace(s.Machine.Cmdline + " " + value)
		if n := len(cmdline(s.Machine.Cmdline)); n > qemu.MaxCmdline {
			return fmt.Errorf("the kernel's command line would have %d bytes, lab's own options among them, and it takes %d", n, qemu.MaxCmdline)
		}
		return nil
	}},
	{Name: "caps", Noun: "capability set", Phrase: "with capabilities %s", None: "docker", set: func(s *Spec, value string) error {
		names, err := parseCaps(value)
		s.Test.CapDrop, s.Test.CapAdd = []string{"ALL"}, names
		return err
	}},
	{Name: "container", Noun: "container", Phrase: "in a container with %s", None: "defaults", set: func(s *Spec, value string) error {
		words := splitWords(value)
		rest := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == privileged })
		pieces, err := parseContainer(strings.Join(rest, ","))
		if err != nil {
			return err
		}
		s.Test.Privileged = s.Test.Privileged || len(rest) < len(words)
		for _, p := range pieces {
			p.set(&s.Test)
		}
		return nil
	}},
	{Name: "runtime", Noun: "runtime", Phrase: "by %s", set: func(s *Spec, value string) error {
		if s.Test.Runtime = value; value == ownRuntime {
			s.Test.Runtime = ""
		}
		return s.Test.Validate()
	}},
}

// ownRuntime is what lab's own agent is called among the runtimes.
const ownRuntime = "lab"

// A matrix is one at work.
type matrix struct {
	*Lab
	report.Matrix
	what    string       // it is, as its first line says
	cells   []*cell      // of report.Matrix's, of which several may be one
	tree    *kernel.Tree // of the commits; nil where there are none
	kernels []*constant
	journal *journal
	// preparing is held by who builds, unpacks or writes a disk: a build takes all
	// processors, and boots are what goes side by side.
	preparing sync.Mutex
}

// A cell is one combination.
type cell struct {
	spec   Spec
	kernel *constant
	pinned []Image
	known  kernel.Commit // as the journal knows it: a digest of all that may change its verdict, and its title
	err    error         // what kept lab from testing it
}

// A place is the value of an axis: what it is called, and what it makes of a cell.
type place struct {
	title, value string
	make         func(c *cell) error
}

// Matrix runs one test in every combination. Killed at any instant, the same call
// goes on where it was; and one with more values tests only what is new. What lab
// could not do for a cell is that cell's reason, and is tried again the next time.
func (l *Lab) Matrix(ctx context.Context, o MatrixOptions) (report.Matrix, error) {
	if err := o.Spec.Validate(); err != nil {
		return report.Matrix{}, err
	}
	m := &matrix{Lab: l, Matrix: report.Matrix{Format: report.MatrixFormat, Test: o.Spec.Test.Command}}
	defer m.Close()
	if err := m.lay(ctx, o); err != nil {
		return report.Matrix{}, err
	}
	m.what = "matrix of " + plural(len(m.cells), "cell")
	if err := m.open(ctx, o); err != nil {
		return report.Matrix{}, err
	}
	if err := m.test(ctx, max(1, o.Runs), max(1, o.Jobs), m.try); err != nil {
		return report.Matrix{}, err
	}
	if err := m.tell(); err != nil {
		return report.Matrix{}, err
	}
	return m.Matrix, nil
}

func (m *matrix) Close() {
	for _, k := range m.kernels {
		if k.tree != m.tree {
			k.Close()
		}
	}
	if m.tree != nil {
		m.tree.Close()
	}
	if m.journal != nil {
		m.journal.Close()
	}
}

// lay finds the values of all axes and makes the cells.
func (m *matrix) lay(ctx context.Context, o MatrixOptions) error {
	kernels, err := m.layKernels(ctx, o)
	if err != nil {
		return err
	}
	images, err := m.layImages(ctx, o)
	if err != nil {
		return err
	}
	axes := [][]place{kernels, images}
	m.Axes = []report.MatrixAxis{{Name: "kernel", Noun: "kernel", Phrase: "on kernel %s"}, {Name: "image", Noun: "image", Phrase: "in image %s"}}
	for _, a := range MatrixAxes {
		var places []place
		for _, value := range o.Around[a.Name] {
			if err := a.set(new(o.Spec), value); err != nil {
				return fmt.Errorf("%s %q: %w", a.Name, value, err)
			}
			places = append(places, place{cmp.Or(value, a.None), value, func(c *cell) error { return a.set(&c.spec, value) }})
		}
		axes = append(axes, places)
		m.Axes = append(m.Axes, report.MatrixAxis{Name: a.Name, Noun: a.Noun, Phrase: a.Phrase})
	}
	for i := len(axes) - 1; i >= 0; i-- {
		if len(axes[i]) == 0 {
			axes, m.Axes = slices.Delete(axes, i, i+1), slices.Delete(m.Axes, i, i+1)
		}
	}
	n := 1
	for i, places := range axes {
		seen := map[string]bool{}
		for _, p := range places {
			if seen[p.title] {
				return fmt.Errorf("%s %s is there twice", m.Axes[i].Noun, p.title)
			}
			seen[p.title] = true
			m.Axes[i].Values = append(m.Axes[i].Values, report.MatrixValue{Title: p.title, Value: p.value})
		}
		if n *= len(places); n > report.MaxCells {
			return fmt.Errorf("a matrix of more than %d cells", report.MaxCells)
		}
	}
	if n == 1 {
		return errors.New("two values of something are wanted at least: two kernels, images, command lines …; for one there is lab run")
	}
	for i := range n {
		at := make([]int, len(axes))
		for a := len(axes) - 1; a >= 0; a-- {
			at[a], i = i%len(axes[a]), i/len(axes[a])
		}
		if err := m.put(o.Spec, axes, at); err != nil {
			return err
		}
	}
	return nil
}

// put makes the cell of some values.
func (m *matrix) put(spec Spec, axes [][]place, at []int) error {
	c := &cell{spec: spec}
	var titles []string
	for i, v := range at {
		if err := axes[i][v].make(c); err != nil {
			return err
		}
		if len(axes[i]) > 1 {
			titles = append(titles, oneLine(axes[i][v].title))
		}
	}
	if slices.Contains(c.spec.Test.CapDrop, "ALL") && c.spec.Test.Privileged {
		return fmt.Errorf("%s: a privileged container has all capabilities", strings.Join(titles, ", "))
	}
	if err := c.spec.Validate(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(titles, ", "), err)
	}
	var err error
	c.known.Title = strings.Join(titles, " · ")
	if c.known.Hash, err = c.key(); err != nil {
		return err
	}
	for _, o := range m.cells {
		if o.known.Hash == c.known.Hash {
			c = o // two tags of one image, say: one test is enough
			break
		}
	}
	m.cells = append(m.cells, c)
	m.Cells = append(m.Cells, report.MatrixCell{At: at})
	return nil
}

// key is a digest of everything that could change a cell's verdict.
func (c *cell) key() (string, error) {
	s := c.spec
	s.Kernel = KernelSpec{Modules: s.Kernel.Modules}
	s.Images = slices.Clone(s.Images)
	for i := range s.Images {
		s.Images[i].Reference = c.pinned[i].Digest
	}
	if s.Base != "" {
		s.Base = c.pinned[len(s.Images)].Digest
	}
	modules, err := digests(c.kernel.ready.Modules)
	if err != nil {
		return "", err
	}
	return digestJSON(struct {
		Spec      Spec
		Kernel    string
		Modules   []string           `json:",omitempty"`
		Fragments []kconfig.Fragment `json:",omitempty"`
		OnTop     []string           `json:",omitempty"`
		Toolchain []string           `json:",omitempty"`
	}{s, c.kernel.name(), modules, c.kernel.options.Fragments, c.kernel.options.OnTop(), c.kernel.options.Toolchain.Identity()})
}

func digestJSON(v any) (string, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encode spec: %w", err)
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// layKernels finds the kernels.
func (m *matrix) layKernels(ctx context.Context, o MatrixOptions) (places []place, err error) {
	add := func(k *constant, title, value string) {
		m.kernels = append(m.kernels, k)
		places = append(places, place{title, value, func(c *cell) error { c.kernel = k; return nil }})
	}
	found, _, err := expand(o.Kernels)
	if err != nil {
		return nil, err
	}
	named := map[string]int{} // how many kernels have a name
	var packages []Package
	for i, ref := range found {
		m.Progress.Show("reading kernel %d of %d: %s", i+1, len(found), filepath.Base(ref))
		p, err := m.describe(ctx, o.Spec, ref)
		m.Progress.Show("")
		if err != nil {
			return nil, err
		}
		named[p.Release]++
		named[p.String()]++
		packages = append(packages, p)
	}
	paths := lastParts(found)
	for i, p := range packages {
		title := p.Release
		if named[title] > 1 {
			title = p.String()
		}
		if named[title] > 1 {
			title = paths[i]
		}
		s := o.Spec
		s.Kernel = KernelSpec{File: p.Reference, Modules: o.Spec.Kernel.Modules}
		for _, runtime := range o.Around["runtime"] { // one kernel is for all of them
			if slices.Contains(oci.Engines, runtime) {
				s.Test.Runtime = runtime
			}
		}
		k, err := m.source(ctx, s)
		if err != nil {
			return nil, err
		}
		add(&constant{source: k}, title, p.Reference)
	}
	if len(o.Commits) == 0 {
		return places, nil
	}
	tree, options, err := m.openTree(ctx, o.Spec)
	if err != nil {
		return nil, err
	}
	m.tree = tree
	for _, rev := range o.Commits {
		c, err := tree.Resolve(ctx, rev)
		if err != nil {
			return nil, err
		}
		title := rev
		if strings.HasPrefix(c.Hash, rev) {
			title = short(c.Hash)
		}
		built := options
		if built.Toolchain.Tools == nil { // what suits the commit's age, whatever is installed by the next time
			if built.Toolchain, err = tree.ChooseToolchain(ctx, options.Notice, c.Hash); err != nil {
				return nil, err
			}
		}
		add(&constant{source: source{Lab: m.Lab, tree: tree, commit: c, options: built}}, title, rev)
	}
	return places, nil
}

// layImages finds the images, and their digests by now.
func (m *matrix) layImages(ctx context.Context, o MatrixOptions) ([]place, error) {
	s := o.Spec
	if !s.needsGuest() {
		return nil, nil
	}
	at := slices.IndexFunc(s.Images, func(i Load) bool { return i.Name == s.Test.Container })
	if at < 0 {
		return nil, fmt.Errorf("the test runs in %s, which is none of the images", s.Test.Container)
	}
	store, err := m.store()
	if err != nil {
		return nil, err
	}
	g := &gallery{Lab: m.Lab, spec: s}
	var references []string
	for _, ref := range o.Images {
		found, err := g.expand(ctx, ref)
		if err != nil {
			return nil, err
		}
		references = append(references, found...)
	}
	if len(references) == 0 {
		references = []string{s.Images[at].Reference}
	}
	loads := s.Images
	if s.Base != "" {
		loads = append(slices.Clone(loads), Load{Reference: s.Base})
	}
	pinned := make([]Image, len(loads))
	for i, load := range loads {
		if i == at {
			continue
		}
		img, err := m.image(ctx, store, s, load, "")
		if err != nil {
			return nil, err
		}
		pinned[i] = Image{Name: load.Name, Pin: img.Pin}
	}
	var places []place
	titles := lastParts(references)
	for i, ref := range references {
		load := Load{Name: s.Images[at].Name, Reference: ref}
		img, err := m.image(ctx, store, s, load, "")
		if err != nil {
			return nil, err
		}
		places = append(places, place{titles[i], ref, func(c *cell) error {
			c.spec.Images, c.pinned = slices.Clone(c.spec.Images), slices.Clone(pinned)
			c.spec.Images[at], c.pinned[at] = load, Image{Name: load.Name, Pin: img.Pin}
			return nil
		}})
	}
	return places, nil
}

// lastParts are references without the folders, or the repository, that all of them
// begin with.
func lastParts(references []string) []string {
	titles := slices.Clone(references)
	if len(references) < 2 {
		return titles
	}
	common := references[0]
	for _, ref := range references[1:] {
		for !strings.HasPrefix(ref, common) {
			common = common[:len(common)-1]
		}
	}
	common = common[:strings.LastIndexAny(common, "/:")+1]
	for i, ref := range references {
		if rest := strings.TrimPrefix(ref, common); rest != "" {
			titles[i] = rest
		}
	}
	return titles
}

// open opens the journal: in o.Dir, or in a folder that is named by what all cells
// have in common, so that the same test with other values finds what is known.
func (m *matrix) open(ctx context.Context, o MatrixOptions) error {
	s := o.Spec
	s.Kernel = KernelSpec{Modules: s.Kernel.Modules}
	s.Images = slices.Clone(s.Images)
	for i := range s.Images {
		if s.Images[i].Name == s.Test.Container {
			s.Images[i].Reference = ""
		}
	}
	key, err := digestJSON(s)
	if err != nil {
		return err
	}
	m.Dir = cmp.Or(o.Dir, filepath.Join(m.State, "matrices", short(key)))
	if h, err := running(m.Dir); err == nil && h != nil {
		return fmt.Errorf("another lab is at work on the matrix in %s: %s", m.Dir, h)
	}
	if m.journal, err = openJournal(ctx, m.Dir); err != nil {
		return err
	}
	if m.journal.torn != "" {
		m.Progress.Say("%s", m.journal.torn)
	}
	switch events := m.journal.events; {
	case len(events) == 0:
		return m.journal.add(record{Event: eventStart, Format: journalFormat, Key: key})
	case events[0].Key != key:
		return fmt.Errorf("the folder %s is of another test: give --dir another one", m.Dir)
	}
	return nil
}

// runs are those of a cell that are on record.
func (m *matrix) runs(c *cell) (list []*Tested) {
	for _, r := range m.journal.records {
		if r.Tested != nil && r.Tested.Commit.Hash == c.known.Hash {
			list = append(list, r.Tested)
		}
	}
	return list
}

// landing is what came of one run of a cell.
type landing struct {
	cell  *cell
	trial Trial
	err   error
}

// test has all cells run as often as they should: each once, and then all again. It
// returns when no run is under way, however it ends.
func (m *matrix) test(ctx context.Context, runs, jobs int, try func(context.Context, *cell) (Trial, error)) error {
	var cells, todo []*cell
	known := map[*cell]int{}
	for _, c := range m.cells {
		if _, same := known[c]; !same {
			known[c] = len(m.runs(c))
			cells = append(cells, c)
		}
	}
	for run := range runs {
		for _, c := range cells {
			if known[c] <= run {
				todo = append(todo, c)
			}
		}
	}
	all := runs * len(cells)
	before := ""
	if done := all - len(todo); done > 0 {
		before = fmt.Sprintf("; %d of %d done before", done, all)
	}
	m.Progress.Say("%s, %s; state in %s%s", m.what, plural(all, "run"), m.Dir, before)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	landed := make(chan landing)
	flying, done := 0, all-len(todo)
	var failed error
	for len(todo) > 0 || flying > 0 {
		for flying < jobs && len(todo) > 0 && ctx.Err() == nil {
			c := todo[0]
			if todo = todo[1:]; c.err != nil {
				done++ // what failed once would fail again
				continue
			}
			flying++
			go func() {
				t, err := try(ctx, c)
				landed <- landing{c, t, err}
			}()
		}
		if flying == 0 {
			break
		}
		l := <-landed
		flying--
		done++
		if err := m.land(ctx, l, fmt.Sprintf("[%d/%d]", done, all)); err != nil && failed == nil {
			failed = err
			cancel(err)
		}
	}
	if failed == nil && ctx.Err() != nil {
		failed = context.Cause(ctx)
	}
	return failed
}

// try does one run of a cell.
func (m *matrix) try(ctx context.Context, c *cell) (Trial, error) {
	t, g, err := m.ready(ctx, c)
	if err != nil || g == nil {
		return t, err
	}
	return t, m.Lab.try(ctx, c.spec, g, &t)
}

// ready gets a cell's kernel, and its guest where there is something to boot.
func (m *matrix) ready(ctx context.Context, c *cell) (Trial, *guest, error) {
	m.preparing.Lock()
	defer m.preparing.Unlock()
	if err := ctx.Err(); err != nil {
		return Trial{}, nil, err
	}
	t, err := c.kernel.trial(ctx)
	if err != nil || t.End != EndBuilt || !c.spec.needsGuest() {
		return t, nil, err
	}
	g, err := m.prepare(ctx, c.spec, c.pinned)
	return t, g, err
}

// land judges and records a run. An error is the matrix's end.
func (m *matrix) land(ctx context.Context, l landing, count string) error {
	c := l.cell
	if l.err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.err = l.err
		m.Progress.Say("%s %s: could not be tested: %s", count, c.known.Title, oneLine(l.err.Error()))
		return nil
	}
	t := l.trial
	r := &Tested{Commit: c.known, Role: RoleStep, Verdict: Judge(t, c.spec.Symptom), End: t.End, Exit: exitOf(t),
		Kernel: t.Kernel.Digest, OnTop: t.Kernel.OnTop, Cached: t.Cached, Build: t.Build, Boot: t.Boot, Test: t.Test}
	r.Dir = m.journal.trialDir(c.known)
	if err := t.Save(filepath.Join(m.journal.dir, r.Dir)); err != nil {
		return err
	}
	if err := m.journal.add(record{Event: eventVerdict, Tested: r}); err != nil {
		return err
	}
	m.Progress.Say("%s %s: %s: %s%s", count, c.known.Title, r.Mark, r.Reason, r.times())
	return nil
}

// times says where a run's time went.
func (t *Tested) times() string {
	var parts []string
	for _, p := range []struct {
		what string
		took time.Duration
	}{{"built", t.Build}, {"booted", t.Boot}, {"tested", t.Test}} {
		if p.took >= 50*time.Millisecond {
			parts = append(parts, p.what+" in "+seconds(p.took))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}
