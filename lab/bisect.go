package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"lab/kernel"
	"lab/kernel/kconfig"
	"lab/lab/search"
)

// BisectOptions says what is bisected. Spec.Kernel gives the tree and the
// config; its Commit is not used. With Spec.Command it gives the repository alone.
type BisectOptions struct {
	Spec Spec
	Good []string // revisions without the symptom
	Bad  string   // a revision with it
	// Kernels, in the place of Spec.Kernel's tree, are references of ready-made
	// kernels, as Lab.Packages takes them. Good and Bad then name some of them,
	// by default the first and the last.
	Kernels []string
	// Images, in their place, are references of the image under test, from the
	// oldest to the newest, ranges FROM..TO of a registry's tags, and patterns;
	// Layers is one image, whose layers are added one by one. Both are tried on the
	// one kernel that Spec.Kernel names, and stand for what Spec.Images has under the
	// name of the test's container.
	Images []string
	Layers string
	Dir    string // where the bisect keeps its state; empty is a folder of Lab.State named by what is bisected
	// Audit is how many commits whose verdicts were inferred without a build
	// are built and booted at the end, to see that they were right.
	Audit int
}

// A Bisection is the answer of Bisect. One of three shapes: Culprit set, and
// its verdict confirmed; Suspects set, when skipped commits leave several; or
// neither, when Unclear says why there is no answer.
type Bisection struct {
	Good     []kernel.Commit `json:"good"`
	Bad      kernel.Commit   `json:"bad"`
	Culprit  *kernel.Commit  `json:"culprit,omitempty"`
	Parents  []string        `json:"parents,omitempty"` // those of the culprit that were tested good
	Suspects []kernel.Commit `json:"suspects,omitempty"`
	Unclear  string          `json:"unclear,omitempty"`
	Axis     string          `json:"axis"`              // what each candidate is: commit, kernel, image or layer
	Range    int             `json:"range"`             // commits between the ends
	Inert    int             `json:"inert"`             // those of them that, as the last builds read the tree, cannot change the kernel
	Kernels  []Package       `json:"kernels,omitempty"` // all, in order, where ready-made ones were bisected; a commit's hash is then a package's digest
	Tested   []Tested        `json:"tested"`
	Images   []Image         `json:"images"`
	// Toolchain is what all kernels were built with; nil where none was.
	Toolchain *kernel.Toolchain `json:"toolchain,omitempty"`
	Command   string            `json:"command,omitempty"` // where there were no kernels: what judged the commits
	Log       string            `json:"log"`               // for git bisect replay; empty where ready-made kernels were bisected
	Dir       string            `json:"dir"`
	Elapsed   time.Duration     `json:"elapsed_ns"` // of this run; an earlier one that was cut short is not in it
}

// bisection is a Bisect at work.
type bisection struct {
	*Lab
	axis
	spec     Spec
	tree     *kernel.Tree        // where the candidates are commits to build, and
	options  kernel.BuildOptions // how they are built
	pool     *pool               // where they are ready made
	gallery  *gallery            // where they are images
	commands *commands           // where they are no kernels
	journal  *journal
	guest    *guest
	vain     vain
	pin      pin

	commits    []kernel.Commit // the range, and what the search knows of it
	candidates []search.Candidate
	marks      []search.Mark
	queue      []kernel.Commit // what is tested next, whatever comes out
	ahead      *ahead          // what is being built for later; nil for nothing
	prepared   sync.Map        // hashes of commits that were built so, and during whose test

	audits int
	start  time.Time
	result Bisection
}

// Bisect finds the first bad commit. Killed at any instant, the same call with
// the same Dir goes on where it was.
func (l *Lab) Bisect(ctx context.Context, o BisectOptions) (Bisection, error) {
	if err := o.Spec.Validate(); err != nil {
		return Bisection{}, err
	}
	b := &bisection{Lab: l, spec: o.Spec, audits: o.Audit, start: time.Now()}
	if o.Spec.Command != nil {
		b.result.Command = o.Spec.Command.String()
	}
	if err := b.openAxis(ctx, o); err != nil {
		return Bisection{}, err
	}
	defer b.Close()
	b.result.Axis = b.words("commit")
	defer func() { b.ahead.yield(nil) }()
	commits, err := b.ends(ctx, o, &b.result)
	if err != nil {
		return Bisection{}, err
	}
	if err := b.chooseToolchain(ctx, b.result.Good, b.result.Bad); err != nil {
		return Bisection{}, err
	}
	key, err := b.key()
	if err != nil {
		return Bisection{}, err
	}
	if o.Dir == "" {
		o.Dir = filepath.Join(l.State, "bisects", key[:16])
	}
	b.result.Dir = o.Dir
	if b.journal, err = openJournal(o.Dir); err != nil {
		return Bisection{}, err
	}
	defer b.journal.Close()
	if err := b.begin(ctx, key); err != nil {
		return Bisection{}, err
	}
	b.commits = commits
	b.recall()
	ok, err := b.verifyEnds(ctx)
	if err == nil && ok {
		err = b.search(ctx)
	}
	if err != nil {
		return Bisection{}, err
	}
	b.finish()
	return b.result, nil
}

// key names what is bisected, so that state is never mixed up: everything that
// could change a verdict, as the user gave it.
func (b *bisection) key() (string, error) {
	s := b.spec
	s.Kernel.Jobs, s.Kernel.Repo, s.Kernel.Commit = 0, "", ""
	s.Kernel.Picks, s.Kernel.Patches = nil, nil // OnTop says what they are
	s.Kernel.Toolchain = ""                     // what it is counts, not what it is called
	var goods []string
	for _, g := range b.result.Good {
		goods = append(goods, g.Hash)
	}
	data, err := json.Marshal(struct {
		Spec      Spec
		Fragments []kconfig.Fragment
		Good      []string
		Bad       string
		Kernels   []string `json:",omitempty"`
		OnTop     []string `json:",omitempty"`
		Toolchain []string `json:",omitempty"`
	}{s, b.options.Fragments, goods, b.result.Bad.Hash, b.identity(), b.options.OnTop(), b.options.Toolchain.Identity()})
	if err != nil {
		return "", fmt.Errorf("encode spec: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// begin makes the guest, once and for all commits. A bisect that goes on uses
// the digests that it began with, whatever a tag says by now.
func (b *bisection) begin(ctx context.Context, key string) error {
	old := b.journal.records
	if len(old) > 0 {
		if old[0].Key != key {
			return fmt.Errorf("the bisect in %s is another one (other ends, test, image, config, compiler, picks or patches): give --dir another folder, or remove that one to begin again", b.journal.dir)
		}
		b.result.Images = old[0].Images
		b.Progress.Say("going on with the bisect in %s: %s done before", b.journal.dir, plural(b.journal.count(), "test"))
	}
	if b.spec.needsGuest() {
		var err error
		if b.guest, err = b.prepare(ctx, b.spec, b.result.Images); err != nil {
			return err
		}
		b.result.Images = b.guest.images
	}
	if len(old) > 0 {
		return nil
	}
	return b.journal.add(record{Event: "start", Format: journalFormat, Key: key, Images: b.result.Images, OnTop: b.options.OnTop()})
}

// verifyEnds tests that good is good and bad is bad. Where one is not, there
// is nothing to search, and Unclear says what was seen.
func (b *bisection) verifyEnds(ctx context.Context) (bool, error) {
	b.Progress.Say(b.words("%d commits between %s and %s; checking both ends first"), b.result.Range-1, name(b.result.Good[0]), name(b.result.Bad))
	for i, c := range b.result.Good {
		b.queue = append(slices.Clone(b.result.Good[i+1:]), b.result.Bad)
		if ok, err := b.verifyEnd(ctx, c, Good); !ok {
			return false, err
		}
	}
	b.queue = nil
	return b.verifyEnd(ctx, b.result.Bad, Bad)
}

func (b *bisection) verifyEnd(ctx context.Context, c kernel.Commit, want Mark) (bool, error) {
	b.Progress.Say("the %s end: %s", want, name(c))
	t, err := b.test(ctx, c, RoleEnd, b.result.Range)
	if err != nil {
		return false, err
	}
	if t.Mark == want {
		return true, nil
	}
	b.result.Unclear = fmt.Sprintf("the %s end %s is not %s but %s: %s", want, name(c), want, t.Mark, t.Reason)
	if t.Mark != Skip {
		b.result.Unclear += "; are good and bad swapped?"
	}
	return false, nil
}

// search narrows the range until one commit, or one set of suspects, is left,
// and then tests the answer again.
func (b *bisection) search(ctx context.Context) error {
	if err := b.vain.read(ctx, b.tree, b.commits); err != nil {
		return err
	}
	for n := 1; ; n++ {
		if err := b.weigh(ctx, b.candidates); err != nil {
			return err
		}
		step := search.Next(b.candidates, b.marks)
		if step.Conflict != nil {
			return fmt.Errorf("search: %s", step.Why)
		}
		if step.Test < 0 {
			return b.conclude(ctx, step)
		}
		c := b.commits[step.Test]
		b.Progress.Say("step %d: %s\n  %s; %s left of %d, about %s to go, %s so far", n, name(c), b.words(step.Why),
			plural(step.Left, b.words("commit")), b.result.Range, plural(step.Steps, "test"), seconds(time.Since(b.start)))
		t, err := b.test(ctx, c, RoleStep, step.Left)
		if err != nil {
			return err
		}
		b.marks[step.Test] = searchMark(t.Mark)
	}
}

// recall turns the range into what the search works on, with what the journal
// knows of it.
func (b *bisection) recall() {
	at := make(map[string]int, len(b.commits))
	for i, c := range b.commits {
		at[c.Hash] = i
	}
	b.candidates = make([]search.Candidate, len(b.commits))
	for i, c := range b.commits {
		b.candidates[i].ID = c.Hash
		for _, p := range c.Parents {
			if n, ok := at[p]; ok {
				b.candidates[i].Parents = append(b.candidates[i].Parents, n)
			}
		}
	}
	b.marks = make([]search.Mark, len(b.commits))
	for _, r := range b.journal.records { // a bisect that goes on
		if r.Tested != nil && r.Tested.Role == RoleStep {
			if i, ok := at[r.Tested.Commit.Hash]; ok {
				b.marks[i] = searchMark(r.Tested.Mark)
			}
		}
	}
	b.marks[len(b.marks)-1] = search.Bad
}

func searchMark(m Mark) search.Mark {
	switch m {
	case Good:
		return search.Good
	case Bad:
		return search.Bad
	}
	return search.Skip
}

// conclude records the answer and tests it and its parents once more.
func (b *bisection) conclude(ctx context.Context, step search.Step) error {
	if step.Culprit < 0 {
		for _, i := range step.Suspects {
			b.result.Suspects = append(b.result.Suspects, b.commits[i])
		}
		b.result.Unclear = fmt.Sprintf(b.words("only skipped commits are left: any of %s could be the first bad one"), plural(len(step.Suspects), b.words("commit")))
		if err := b.audit(ctx, b.commits); err != nil {
			return err
		}
		return b.end()
	}
	culprit := b.commits[step.Culprit]
	b.Progress.Say(b.words("the first bad commit would be %s; testing it and its %s again"), name(culprit), plural(len(culprit.Parents), b.words("parent")))
	if err := b.confirm(ctx, culprit); err != nil {
		return err
	}
	if err := b.audit(ctx, b.commits); err != nil {
		return err
	}
	return b.end()
}

// confirm tests the culprit and its parents again. The culprit must be bad. A
// parent that is bad too contradicts the answer; one that can't be judged, as
// happens to those older than the good end, does not.
func (b *bisection) confirm(ctx context.Context, culprit kernel.Commit) error {
	b.queue = b.answer(ctx, culprit)[1:]
	defer func() { b.queue = nil }()
	t, err := b.test(ctx, culprit, RoleConfirm, 1)
	if err != nil {
		return err
	}
	if t.Mark != Bad {
		b.result.Unclear = fmt.Sprintf("%s was bad and is %s when tested again (%s): the test is flaky, or what it tests is", name(culprit), t.Mark, t.Reason)
		return nil
	}
	var good []string
	for _, hash := range culprit.Parents {
		p, err := b.resolve(ctx, hash)
		if err != nil {
			return err
		}
		b.queue = b.queue[min(1, len(b.queue)):]
		t, err := b.test(ctx, p, RoleConfirm, 1)
		if err != nil {
			return err
		}
		switch t.Mark {
		case Bad:
			b.result.Unclear = fmt.Sprintf(b.words("%s is bad, but so is its parent %s (%s): the test is flaky, or the symptom was there before the good end too"), name(culprit), name(p), t.Reason)
			return nil
		case Good:
			good = append(good, hash)
		}
	}
	b.result.Culprit, b.result.Parents = &culprit, good
	return nil
}

func (b *bisection) end() error {
	if n := len(b.journal.records); n > 0 && b.journal.records[n-1].Event == "end" {
		return nil
	}
	r := record{Event: "end", Unclear: b.result.Unclear}
	if b.result.Culprit != nil {
		r.Culprit = b.result.Culprit.Hash
	}
	for _, c := range b.result.Suspects {
		r.Suspects = append(r.Suspects, c.Hash)
	}
	return b.journal.add(r)
}

// finish fills in what the journal knows.
func (b *bisection) finish() {
	h := search.History{Bad: logged(b.result.Bad)}
	for _, c := range b.result.Good {
		h.Good = append(h.Good, logged(c))
	}
	for _, r := range b.journal.records {
		if r.Tested == nil {
			continue
		}
		b.result.Tested = append(b.result.Tested, *r.Tested)
		if r.Tested.Role == RoleStep {
			h.Tested = append(h.Tested, search.Tested{Commit: logged(r.Tested.Commit), Mark: searchMark(r.Tested.Mark)})
		}
	}
	if b.result.Culprit != nil {
		h.Culprit = logged(*b.result.Culprit)
	}
	for _, c := range b.result.Suspects {
		h.Suspects = append(h.Suspects, logged(c))
	}
	if !isPackageHash(b.result.Bad.Hash) {
		b.result.Log = search.Log(h)
	}
	b.result.Elapsed = time.Since(b.start)
}

func logged(c kernel.Commit) search.Commit { return search.Commit{ID: c.Hash, Title: c.Title} }

// name is how a commit is spoken of: 1a2b3c4d5e6f ("title"); of a package it is the title.
func name(c kernel.Commit) string {
	if isPackageHash(c.Hash) {
		return c.Title
	}
	return fmt.Sprintf("%s (%q)", short(c.Hash), oneLine(c.Title))
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
