package lab

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"lab/kernel"
)

// A Proof is the answer's change by itself: taken back from the bad end, which
// should then be good, and put on top of the good end, which should then be bad. It
// never takes an answer back. A test that was made before, as where the bad end is
// the answer itself, is not made again, and nil here.
type Proof struct {
	Culprit  string  `json:"culprit"` // full hash of what was taken back and put on top
	Reverted *Proven `json:"reverted,omitempty"`
	Applied  *Proven `json:"applied,omitempty"`
	Cannot   string  `json:"cannot,omitempty"` // why nothing was tried
}

// A Proven is one half of a proof: what came out, or why it was not tried.
type Proven struct {
	Runs           // Commit is the end on which it was done
	Cannot  string `json:"cannot,omitempty"`
	Verdict        // of the last run: a skip where it could not be judged
	// Chance is how likely a kernel that fails at the learned rate would have passed
	// all these runs; 0 where one failed, or one run is the truth.
	Chance float64 `json:"chance,omitempty"`
}

// proof tests the answer's change by itself.
func (b *bisection) proof(ctx context.Context) error {
	r := &b.result
	tree := b.tree
	if b.commands != nil && !b.spec.Command.NoCheckout {
		tree = b.commands.tree
	}
	if !b.prove || b.ask != nil || tree == nil || r.Culprit == nil || r.Unclear != "" {
		return nil
	}
	b.ahead.yield(nil)
	culprit, err := tree.Resolve(ctx, r.Culprit.Hash) // with all parents, whichever are looked at
	if err != nil {
		return err
	}
	r.Proof = &Proof{Culprit: culprit.Hash}
	switch n := len(culprit.Parents); {
	case n == 0:
		r.Proof.Cannot = "it has no parent"
		return nil
	case n > 1:
		r.Proof.Cannot = "it is a merge, which has no one change"
		return nil
	}
	if r.Proof.Reverted, err = b.proven(ctx, tree, r.Bad, culprit, true); err != nil {
		return err
	}
	r.Proof.Applied, err = b.proven(ctx, tree, r.Good[0], culprit, false)
	if *r.Proof == (Proof{Culprit: culprit.Hash}) {
		r.Proof = nil
	}
	return err
}

// proven makes one half of the proof: nil where it comes to the files of the
// answer, or of its parent, which were tested.
func (b *bisection) proven(ctx context.Context, tree *kernel.Tree, end, culprit kernel.Commit, reverted bool) (*Proven, error) {
	o := b.options
	o.Picks = append(slices.Clip(o.Picks), kernel.Pick{Commit: culprit, Reverted: reverted})
	p := &Proven{Runs: Runs{Commit: end}}
	top, failure, err := tree.OnTop(ctx, end.Hash, o)
	if err != nil {
		return nil, err
	}
	verb, known := "apply", culprit.Hash
	if reverted {
		verb, known = "revert", culprit.Parents[0]
	}
	if failure != nil {
		_, why, _ := strings.Cut(failure.Line, " does not apply: ")
		p.Cannot = fmt.Sprintf("it does not %s: %s", verb, why)
		return p, nil
	}
	if a := top.Additions[len(o.Picks)-1]; a.State != kernel.Applied {
		p.Cannot = a.Why
		return p, nil
	}
	if same, err := b.comesTo(ctx, tree, top, known); err != nil || same {
		return nil, err
	}
	most, rate := b.proofRuns()
	failed, passed := &p.Bad, &p.Good
	if b.fixes() {
		failed, passed = passed, failed
	}
	for *failed == 0 && *passed < most {
		t := b.provenBefore(p, culprit, reverted)
		if t == nil {
			b.Progress.Say("proof: %s, with %s %s", name(end), name(culprit), map[bool]string{true: "reverted", false: "applied"}[reverted])
			if t, err = b.proofRun(ctx, tree, end, top, o); err != nil {
				return nil, err
			}
		}
		switch p.Verdict = t.Verdict; t.Mark {
		case Bad:
			p.Bad++
		case Good:
			p.Good++
		default:
			return p, nil
		}
	}
	if *failed == 0 && rate > 0 {
		p.Chance = math.Pow(1-rate, float64(*passed))
	}
	return p, nil
}

// comesTo tells whether what was put together has the files of a commit as it is
// built otherwise.
func (b *bisection) comesTo(ctx context.Context, tree *kernel.Tree, top kernel.Top, hash string) (bool, error) {
	other, failure, err := tree.OnTop(ctx, hash, b.options)
	if err != nil || failure != nil {
		return false, err
	}
	files, err := tree.TreeHash(ctx, top.Commit)
	if err != nil {
		return false, err
	}
	others, err := tree.TreeHash(ctx, other.Commit)
	return files == others, err
}

// proofRuns is how many passes convince, and the rate at which a bad kernel fails: 0
// where none that failed was ever seen to pass, and one run is taken for the truth.
func (b *bisection) proofRuns() (runs int, rate float64) {
	_, doubt := evidence(b.journal.records, b.journal.lineage, 1, b.fixes())
	if b.steady || !doubt || b.result.Rate == nil {
		return 1, 0
	}
	rate = min(max(b.result.Rate.Mean, .001), .999)
	confidence := b.confidence
	if confidence == 0 {
		confidence = .95
	}
	return min(b.maxRuns, int(math.Ceil(math.Log(1-confidence)/math.Log(1-rate)))), rate
}

// provenBefore is the run that is next in a proof, where the journal has it.
func (b *bisection) provenBefore(p *Proven, culprit kernel.Commit, reverted bool) *Tested {
	skip := p.Bad + p.Good
	for _, r := range b.journal.records {
		t := r.Proof
		if t == nil || t.Commit.Hash != p.Commit.Hash {
			continue
		}
		is := func(a kernel.Addition) bool { return a.Pick == culprit.Hash && a.Revert == reverted }
		if slices.ContainsFunc(t.OnTop, is) {
			if skip == 0 {
				return t
			}
			skip--
		}
	}
	return nil
}

// proofRun makes one run of a proof, which is in the journal before it counts.
func (b *bisection) proofRun(ctx context.Context, tree *kernel.Tree, end kernel.Commit, top kernel.Top, o kernel.BuildOptions) (*Tested, error) {
	if err := b.journal.hold(end.Hash); err != nil {
		return nil, err
	}
	var t Trial
	var err error
	if b.commands != nil {
		files := end
		files.Hash = top.Commit
		t, err = b.runCommand(ctx, files, 0)
	} else if t, err = b.tryBuild(ctx, tree, end, o); err == nil && t.End == EndBuilt && b.spec.needsGuest() {
		err = b.tryOn(ctx, b.spec, b.guest, &t)
	}
	if err != nil {
		return nil, err
	}
	r := Tested{
		Commit: end, Role: RoleProof, Verdict: b.judge(t), End: t.End, Exit: exitOf(t), Kernel: t.Kernel.Digest,
		OnTop: top.Additions, Cached: t.Cached, Build: t.Build, Boot: t.Boot, Test: t.Test,
	}
	if r.Dir, err = b.save(t, end); err != nil {
		return nil, err
	}
	if err := b.journal.add(record{Event: eventProof, Proof: &r}); err != nil {
		return nil, err
	}
	b.Progress.Say("  %s: %s (%s)", b.called(r.Mark), r.Reason, b.took(r))
	return &r, nil
}

// Text tells the proof in lines; none of nil.
func (p *Proof) Text(terms *Terms) []string {
	if p == nil {
		return nil
	}
	if p.Cannot != "" {
		return []string{"not reverted and applied: " + p.Cannot}
	}
	var lines []string
	for _, half := range []struct {
		*Proven
		verb  string
		want  Mark
		means string
	}{
		{p.Reverted, "reverted", Good, "other changes make it so too"},
		{p.Applied, "applied", Bad, "it takes other changes too"},
	} {
		if half.Proven == nil {
			continue
		}
		line := fmt.Sprintf("%s on %s: ", half.verb, name(half.Commit))
		switch {
		case half.Cannot != "":
			line += "not tested: " + oneLine(half.Cannot)
		case half.Mark == Skip:
			line += "cannot be judged: " + oneLine(half.Reason)
		case half.Mark == half.want:
			line += fmt.Sprintf("%s: %s", terms.Word(half.Mark), oneLine(half.Reason))
		default:
			line += fmt.Sprintf("still %s: %s: %s", terms.Word(half.Mark), half.means, oneLine(half.Reason))
		}
		if half.Chance > 0 {
			line += fmt.Sprintf(" (%s passed; a %s one would do so with %.2g%%)", plural(half.Good+half.Bad, "run"), terms.Word(terms.Turn(Bad)), 100*half.Chance)
		}
		lines = append(lines, line)
	}
	return lines
}

// Table lists the runs that were weighed, one line for each commit of the answer and
// each half of its proof, below a head; nil where no test was seen to fail at times.
func (b *Bisection) Table() []string {
	flaky := slices.ContainsFunc(b.Runs, func(r Runs) bool { return r.Good > 0 && r.Bad > 0 })
	if b.Culprit == nil || b.Rate == nil || !flaky {
		return nil
	}
	lines := []string{"  runs  failed"}
	row := func(r Runs, what string) {
		if n := r.Bad + r.Good; n > 0 {
			lines = append(lines, fmt.Sprintf("%6d  %6d  %s%s", n, b.failed(r), name(r.Commit), what))
		}
	}
	for i, r := range b.Runs {
		row(r, map[bool]string{true: ", a parent"}[i > 0])
	}
	if p := b.Proof; p != nil {
		if p.Reverted != nil {
			row(p.Reverted.Runs, " with it reverted")
		}
		if p.Applied != nil {
			row(p.Applied.Runs, " with it applied")
		}
	}
	return lines
}
