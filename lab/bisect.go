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
	// AlsoBad are further revisions with it: what broke them all is in what they
	// have in common.
	AlsoBad []string
	// FirstParent looks of each merge only at the branch that was merged into.
	FirstParent bool
	// Paths has the search look first at commits that change one of them; see
	// kernel.Tree.Touching. The others are tested only to be sure.
	Paths []string
	// Terms are the user's words for a kernel without the symptom and for one with
	// it. With Terms.Fix, which looks for what repaired it, Good are the older
	// revisions, with the symptom, and Bad is a newer one, without it.
	Terms    Terms
	walked   []Tested // what findGood has tested,
	compiler []string // and the identity of the compiler that it was built with
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
	// Settings, in their place, are what differs around one kernel and one image.
	Settings *Settings
	Dir      string // where the bisect keeps its state; empty is a folder of Lab.State named by what is bisected
	// Hunks has the change of the commit that is found parted: which of its hunks it
	// takes.
	Hunks bool
	// Audit is how many commits whose verdicts were inferred without a build
	// are built and booted at the end, to see that they were right.
	Audit int
	// Confidence is how probable the answer has to be; 0 is .95. Runs of a test
	// that fails at times are weighed, and repeated until it is reached, none more
	// than MaxRuns times for one kernel; 0 is a hundred. With Steady one run decides
	// each time, as for a kernel that does not build.
	Confidence float64
	MaxRuns    int
	Steady     bool
	// Snapshots has most of the runs that repeat one go on from a snapshot of a boot,
	// which is sooner done. They are alike in whatever the boot has settled: of a test
	// that fails by that, they are not the evidence that as many boots would be.
	Snapshots bool
	// Proof has the answer's change tested by itself, where a commit is the answer:
	// see [Proof].
	Proof bool
	// Jobs is how many tests are made at the same time; 0 is one. Launcher is a
	// line for a shell that runs each of them on another machine; see launcher.
	Jobs     int
	Launcher string
	// Command is how the user began the bisect, and may go on with it: for the
	// journal, which tells who looks on.
	Command []string
	// Replay are verdicts to begin with; nil for none.
	Replay *Replay
	// Ask, where it is not nil, is asked for the verdict of each trial.
	Ask func(context.Context, Question) (Reply, error)
}

// A Bisection is the answer of Bisect. One of three shapes: Culprit set, and
// its verdict confirmed; Suspects set, when skipped commits leave several; or
// neither, when Unclear says why there is no answer.
type Bisection struct {
	Good        []kernel.Commit `json:"good"`
	Bad         kernel.Commit   `json:"bad"`
	AlsoBad     []kernel.Commit `json:"also_bad,omitempty"` // where several were given: these, and Bad is what they have in common
	Bases       []kernel.Commit `json:"bases,omitempty"`    // those of Good that were not given: where a given one and Bad part
	Walked      []Tested        `json:"walked,omitempty"`   // where no good one was given: the tests that found it
	Terms       *Terms          `json:"terms,omitempty"`    // nil where good is good and bad is bad
	FirstParent bool            `json:"first_parent,omitempty"`
	Paths       []string        `json:"paths,omitempty"`
	Merged      []string        `json:"merged,omitempty"` // of a culprit that is a merge, the parents that were not looked at
	Culprit     *kernel.Commit  `json:"culprit,omitempty"`
	Parents     []string        `json:"parents,omitempty"` // those of the culprit that were tested good
	Suspects    []kernel.Commit `json:"suspects,omitempty"`
	Unclear     string          `json:"unclear,omitempty"`
	Hunks       *Bisection      `json:"hunks,omitempty"`   // of Culprit's change: Flip.Patch is what of it is enough
	Pair        *Pair           `json:"pair,omitempty"`    // where Culprit is a merge, and all of its parents are good
	Flip        *Flip           `json:"flip,omitempty"`    // where settings were bisected: Culprit is then the good one with the smallest set
	Axis        string          `json:"axis"`              // what each candidate is: commit, kernel, image, layer, setting or hunk
	Range       int             `json:"range"`             // commits between the ends
	Inert       int             `json:"inert"`             // those of them that, as the last builds read the tree, cannot change the kernel
	Kernels     []Package       `json:"kernels,omitempty"` // all, in order, where ready-made ones were bisected; a commit's hash is then a package's digest
	Tested      []Tested        `json:"tested"`
	// Confidence is the probability of Culprit, or of Suspects together, and Rate
	// that at which a bad kernel fails, by all runs; Runs are those of the culprit
	// and then of its parents. Of a steady test there are only Runs. PValue is how
	// likely chance alone would have made the runs differ so much: see [search.Fisher].
	Confidence float64 `json:"confidence,omitempty"`
	Rate       *Rate   `json:"rate,omitempty"`
	Runs       []Runs  `json:"runs,omitempty"`
	PValue     float64 `json:"p_value,omitempty"`
	Proof      *Proof  `json:"proof,omitempty"` // nil where it was not asked for, or could tell nothing new
	// Restored are the kernels that were run from snapshots, too.
	Restored []BothWays `json:"restored,omitempty"`
	Images   []Image    `json:"images"`
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
	spec      Spec
	tree      *kernel.Tree        // where the candidates are commits to build, and
	options   kernel.BuildOptions // how they are built
	pool      *pool               // where they are ready made
	gallery   *gallery            // where they are images
	commands  *commands           // where they are no kernels
	settings  *settings           // where they are sets of differences
	snapshots *snapshots          // of guests; nil for none
	journal   *journal
	guest     *guest
	vain      vain
	pin       pin

	commits    []kernel.Commit // the range, and what the search knows of it
	candidates []search.Candidate
	marks      []search.Mark
	queue      []kernel.Commit // what is tested next, whatever comes out
	answering  string          // the hash of the commit that is tested as the answer
	ahead      *ahead          // what is being built for later; nil for nothing
	prepared   sync.Map        // hashes of commits that were built so, and during whose test

	jobs     int
	flights  []*flight        // the tests under way
	fresh    map[*Tested]bool // the verdicts of this run: they are said already
	landed   chan *flight     // those that have ended,
	flown    []time.Duration  // and how long they took
	ready    chan struct{}    // one of them is at its boot
	launcher *launcher        // nil where they run on this machine

	compiler   []string // by which result.Walked was tested
	audits     int
	replay     *Replay
	ask        func(context.Context, Question) (Reply, error)
	onlyEnds   bool // nothing is searched: the ends say it all
	foreign    int  // others' events in the journal when the search began
	prove      bool // the answer's change is tested by itself
	steady     bool // one run of a test is the truth
	maxRuns    int
	confidence float64
	start      time.Time
	result     Bisection
}

// Bisect finds the first bad commit. Killed at any instant, the same call with
// the same Dir goes on where it was.
func (l *Lab) Bisect(ctx context.Context, o BisectOptions) (Bisection, error) {
	if err := o.Spec.Validate(); err != nil {
		return Bisection{}, err
	}
	if len(o.Good) == 0 && o.ofCommits() {
		found, err := l.findGood(ctx, &o)
		if err != nil || found.Unclear != "" {
			return found, err
		}
	}
	b := newBisection(l, o)
	defer b.Close()
	if err := b.open(ctx, o); err != nil {
		return Bisection{}, err
	}
	commits, err := b.ends(ctx, o, &b.result)
	if err != nil {
		return Bisection{}, err
	}
	if err := b.enter(ctx, o, commits); err != nil {
		return Bisection{}, err
	}
	if err := b.hunt(ctx, commits); err != nil {
		return Bisection{}, err
	}
	if err := b.afterwards(ctx, o); err != nil {
		return Bisection{}, err
	}
	return b.result, nil
}

func newBisection(l *Lab, o BisectOptions) *bisection {
	b := &bisection{
		Lab: l, spec: o.Spec, audits: o.Audit, prove: o.Proof, ask: o.Ask, replay: o.Replay, start: time.Now(),
		steady: o.Steady || o.Spec.Machine.Exact || o.Spec.Symptom.Kind == SymptomBuild, maxRuns: cmp.Or(o.MaxRuns, defaultMaxRuns), confidence: o.Confidence,
		jobs: max(1, o.Jobs), fresh: map[*Tested]bool{}, landed: make(chan *flight), ready: make(chan struct{}, 1),
		compiler: o.compiler, result: Bisection{Walked: o.walked, FirstParent: o.FirstParent, Paths: o.Paths},
	}
	if o.Snapshots {
		b.snapshots = new(snapshots)
	}
	return b
}

// open opens what the candidates come from.
func (b *bisection) open(ctx context.Context, o BisectOptions) error {
	if err := b.openAxis(ctx, o); err != nil {
		b.axis = nil // one that is not open is not closed
		return err
	}
	if o.Spec.Command != nil {
		b.result.Command = o.Spec.Command.String()
	}
	if err := b.setTerms(o); err != nil {
		return err
	}
	b.result.Axis = b.words("commit")
	return nil
}

// enter opens the journal of the range, in o.Dir or in a folder that is named by
// what is bisected, and begins it or goes on. The ends are known by now.
func (b *bisection) enter(ctx context.Context, o BisectOptions, commits []kernel.Commit) error {
	if err := b.chooseToolchain(ctx, b.result.Good, b.result.Bad); err != nil {
		return err
	}
	key, err := b.key()
	if err != nil {
		return err
	}
	b.result.Dir = cmp.Or(o.Dir, filepath.Join(b.State, "bisects", key[:16]))
	if b.journal, err = openJournal(ctx, b.result.Dir); err != nil {
		return err
	}
	if o.Launcher != "" {
		if b.launcher, err = b.newLauncher(o.Launcher, key[:16]); err != nil {
			return err
		}
	}
	b.commits = commits
	return b.begin(ctx, o, key)
}

// Close ends the work, whatever of it was begun.
func (b *bisection) Close() {
	b.ground()
	b.launcher.Close()
	if b.journal != nil {
		b.journal.Close()
	}
	b.ahead.yield(nil)
	if b.snapshots != nil {
		b.snapshots.close()
	}
	if b.axis != nil {
		b.axis.Close()
	}
}

// hunt finds the answer among the commits of the range, with the journal open
// and the guest made. Where verdicts come in from elsewhere, or are taken back,
// it begins again: what is on record is not tested again.
func (b *bisection) hunt(ctx context.Context, commits []kernel.Commit) error {
	defer b.ground()
	b.commits = commits
	b.recall()
	if err := b.replayed(ctx); err != nil {
		return err
	}
	for {
		if err := b.journal.refresh(); err != nil {
			return err
		}
		b.foreign = b.journal.foreign
		err := b.seek(ctx)
		if err == nil {
			b.finish()
		}
		if !errors.Is(err, errOvertaken) {
			return err
		}
		b.Progress.Say("verdicts were given or taken back meanwhile")
		r := &b.result
		r.Culprit, r.Parents, r.Suspects, r.Unclear, r.Runs, r.Confidence, r.Rate, r.PValue, r.Proof = nil, nil, nil, "", nil, 0, nil, 0, nil
	}
}

// seek goes from the ends to the answer, once.
func (b *bisection) seek(ctx context.Context) error {
	if b.settings != nil {
		return b.minimize(ctx)
	}
	ok, err := b.verifyEnds(ctx)
	switch {
	case err != nil:
		return err
	case ok && b.onlyEnds:
		b.result.Culprit = &b.commits[0]
	case ok:
		return b.search(ctx)
	}
	return b.end(ctx)
}

// replayed has the journal begin with the verdicts of a log.
func (b *bisection) replayed(ctx context.Context) error {
	if b.replay == nil {
		return nil
	}
	s := &Saved{Begun: *b.journal.events[0].Begun, journal: b.journal}
	change, err := s.Replay(b.replay, func(rev string) (kernel.Commit, error) { return b.resolve(ctx, rev) })
	if err == nil && len(change.Given) > 0 {
		b.Progress.Say("%s of the bisect log count: %d of %d commits left", plural(len(change.Given), "verdict"), change.Left, change.Was)
		b.remember()
	}
	return err
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
func (b *bisection) begin(ctx context.Context, o BisectOptions, key string) error {
	old := b.journal.events
	if len(old) > 0 {
		if old[0].Key != key {
			return fmt.Errorf("the bisect in %s is another one (other ends, test, image, config, compiler, picks or patches): give --dir another folder, or remove that one to begin again", b.journal.dir)
		}
		b.result.Images = old[0].Images
		if b.journal.torn != "" {
			b.Progress.Say("%s", b.journal.torn)
		}
		b.Progress.Say("going on with the bisect in %s: %s done before", b.journal.dir, plural(b.journal.count(), "test"))
	}
	if err := keepRange(b.journal.dir, b.commits); err != nil {
		return err
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
	begun, err := b.begun(o)
	if err != nil {
		return err
	}
	if err := b.journal.add(record{Event: eventStart, Format: journalFormat, Key: key, Images: b.result.Images, OnTop: b.options.OnTop(), Begun: begun}); err != nil {
		return err
	}
	return b.takeOver()
}

// search narrows the range by certain verdicts until one commit, or one set of
// suspects, is left, and tests the answer again. Then, or as soon as runs
// contradict each other, all of them are weighed.
func (b *bisection) search(ctx context.Context) error {
	if err := b.vain.read(ctx, b.tree, b.commits); err != nil {
		return err
	}
	told, n, before := false, 0, 0
	for b.result.Unclear == "" {
		if err := b.journal.refresh(); err != nil {
			return err
		}
		if b.journal.foreign != b.foreign {
			return errOvertaken
		}
		if c := b.confirming(); c != nil && !b.confirmed(*c) {
			if err := b.confirm(ctx, *c); err != nil {
				return err
			}
			continue
		}
		if err := b.weigh(ctx, b.candidates); err != nil {
			return err
		}
		b.remember()
		_, doubt := evidence(b.journal.records, b.journal.lineage, 1, b.fixes())
		step := search.Next(b.candidates, b.marks)
		switch {
		case step.Conflict != nil && b.steady:
			b.result.Unclear = step.Why + ": the test is not steady after all"
			continue
		case b.steady && step.Culprit >= 0 && b.confirmed(b.commits[step.Culprit]):
			b.found(b.commits[step.Culprit])
			return b.conclude(ctx)
		case (doubt || step.Conflict != nil) && !b.steady:
			if !told {
				b.Progress.Say("the test is flaky: the same kernel failed it and passed it; from here on every run is weighed")
				told = true
			}
		case step.Test >= 0:
			err := b.round(ctx, round{
				Search: search.Search{Candidates: b.candidates, Exact: true}, Step: step, evidence: search.Certain(b.marks), commits: b.commits,
				role: func(kernel.Commit) string { return RoleStep },
				tell: func(c kernel.Commit, why string) {
					n++
					b.Progress.Say("step %d: %s%s\n  %s; %s, about %s to go%s, %s so far", n, name(c), written(c), why,
						b.narrowed(step.Left, before), plural(step.Steps, "test"), b.expected(step.Steps), seconds(time.Since(b.start)))
					before = step.Left
				},
			})
			if err != nil {
				return err
			}
			continue
		case step.Culprit < 0:
			b.suspects(b.commits, step, b.words("only skipped commits are left"))
			continue
		case !b.confirmed(b.commits[step.Culprit]):
			if err := b.confirm(ctx, b.commits[step.Culprit]); err != nil {
				return err
			}
			continue
		}
		done, err := b.decide(ctx)
		if err != nil {
			return err
		}
		if !done {
			continue
		}
		before := len(b.journal.records)
		if err := b.audit(ctx, b.commits); err != nil {
			return err
		}
		if len(b.journal.records) == before || b.result.Unclear != "" {
			return b.end(ctx) // else what the audit saw is weighed too
		}
	}
	return b.conclude(ctx)
}

// recall turns the range into what the search works on, with what the journal
// knows of it.
func (b *bisection) recall() {
	b.journal.lineage = newLineage(b.commits)
	b.journal.settle()
	b.candidates = b.journal.lineage.candidates()
	b.remember()
}

// remember brings the marks up to what the journal says of the commits, where
// each verdict is taken for certain.
func (b *bisection) remember() { b.marks = b.journal.lineage.marks(b.journal.records) }

func searchMark(m Mark) search.Mark {
	switch m {
	case Good:
		return search.Good
	case Bad:
		return search.Bad
	}
	return search.Skip
}

// finish fills in what the journal knows.
func (b *bisection) finish() {
	b.result.Tested = append(b.result.Tested, tests(b.journal.records)...)
	b.result.Restored = bothWays(b.journal.records)
	if !isPackageHash(b.result.Bad.Hash) {
		b.result.Log = bisectLog(b.result, b.result.Tested)
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

// written is when a commit was, after a comma; nothing of what has no date.
func written(c kernel.Commit) string {
	if c.Date.IsZero() {
		return ""
	}
	return ", written " + c.Date.UTC().Format(time.DateOnly)
}

// narrowed says what is left of what was left before, and between what it lies.
func (b *bisection) narrowed(left, before int) string {
	l, r := b.journal.lineage, &b.result
	lies := fmt.Sprintf(" of %d, between %s", r.Range, l.window(r.Good, r.Bad, tests(b.journal.records)))
	if left < before {
		return fmt.Sprintf("narrowed from %s to %d%s", plural(before, b.words("commit")), left, lies)
	}
	return plural(left, b.words("commit")) + " left" + lies
}

// expected is how long so many tests take, by those so far; nothing where it is
// not worth a word.
func (b *bisection) expected(tests int) string {
	run, build, _ := b.costs()
	left := time.Duration(float64(tests) * (run + build) * float64(time.Second))
	if left < 10*time.Second {
		return ""
	}
	return ", " + seconds(left)
}
