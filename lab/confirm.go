package lab

import (
	"context"
	"fmt"
	"slices"

	"lab/kernel"
	"lab/lab/search"
)

// verifyEnds tests that good is good and bad is bad. Where one is not, there
// is nothing to search, and Unclear says what was seen.
func (b *bisection) verifyEnds(ctx context.Context) (bool, error) {
	if !b.onlyEnds {
		b.Progress.Say("%s between %s and %s; checking both ends first", plural(b.result.Range-1, b.words("commit")), name(b.result.Good[0]), name(b.result.Bad))
	}
	for i, c := range b.result.Good {
		b.queue = append(slices.Clone(b.result.Good[i+1:]), b.result.Bad)
		verify := b.verifyEnd
		if b.fixes() {
			verify = b.verifyFailing
		}
		if ok, err := verify(ctx, c, Good); !ok {
			return false, err
		}
	}
	b.queue = nil
	return b.verifyBad(ctx)
}

// verifyBad tests the bad end.
func (b *bisection) verifyBad(ctx context.Context) (bool, error) {
	if b.fixes() {
		return b.verifyEnd(ctx, b.result.Bad, Bad)
	}
	return b.verifyFailing(ctx, b.result.Bad, Bad)
}

// verifyFailing tests an end that has the symptom. One that passes is tried again,
// unless the test is known to be steady: it may be one that fails at times.
func (b *bisection) verifyFailing(ctx context.Context, c kernel.Commit, want Mark) (bool, error) {
	if ok, err := b.verifyEnd(ctx, c, want); ok || err != nil || b.steady {
		return ok, err
	}
	times := defaultEndRuns
	if b.maxRuns != defaultMaxRuns {
		times = b.maxRuns
	}
	for {
		runs := runsOf(b.journal.records, c)
		failed, passed := runs.Bad, runs.Good
		if want == Good {
			failed, passed = passed, failed
		}
		switch {
		case failed > 0:
			b.result.Unclear = ""
			return true, nil
		case passed == 0 || passed >= times:
			if passed > 1 {
				b.result.Unclear += fmt.Sprintf(" (%d times; --max-runs has it tried more often)", passed)
			}
			return false, nil
		}
		b.Progress.Say("the %s end passed; it may fail at times: run %d of at most %d", b.called(want), passed+1, times)
		if t, err := b.test(ctx, c, RoleAgain, b.result.Range); err != nil || t.Mark == Skip {
			return false, err
		}
	}
}

func (b *bisection) verifyEnd(ctx context.Context, c kernel.Commit, want Mark) (bool, error) {
	b.Progress.Say("the %s end: %s", b.called(want), name(c))
	t, err := b.test(ctx, c, RoleEnd, b.result.Range)
	if err != nil {
		return false, err
	}
	if t.Mark == want {
		return true, nil
	}
	b.result.Unclear = fmt.Sprintf("the %s end %s is not %s but %s: %s", b.called(want), name(c), b.called(want), b.called(t.Mark), t.Reason)
	if t.Mark != Skip {
		b.result.Unclear += b.explain(c, t.Mark)
	}
	return false, nil
}

// suspects records that there are several, and why.
func (b *bisection) suspects(commits []kernel.Commit, step search.Step, why string) {
	for _, i := range step.Suspects {
		b.result.Suspects = append(b.result.Suspects, commits[i])
	}
	b.result.Unclear = fmt.Sprintf("%s: any of %s could be the first %s one", why, plural(len(step.Suspects), b.words("commit")), b.called(Bad))
}

// conclude looks at the answer once more, and records it.
func (b *bisection) conclude(ctx context.Context) error {
	if err := b.audit(ctx, b.commits); err != nil {
		return err
	}
	return b.end(ctx)
}

// found records the first bad commit.
func (b *bisection) found(culprit kernel.Commit) {
	b.result.Culprit, b.result.Parents = &culprit, nil
	b.result.Runs = []Runs{runsOf(b.journal.records, culprit)}
	for _, hash := range culprit.Parents {
		t := b.journal.tested(hash, RoleConfirm)
		if t == nil || t.Mark == Skip {
			continue // older than the good end, as a rule
		}
		runs := runsOf(b.journal.records, t.Commit)
		b.result.Runs = append(b.result.Runs, runs)
		if runs.Good > runs.Bad {
			b.result.Parents = append(b.result.Parents, hash)
		}
	}
	var parents search.Evidence
	for _, runs := range b.result.Runs[1:] {
		parents.Bad, parents.Good = parents.Bad+runs.Bad, parents.Good+runs.Good
	}
	first := b.result.Runs[0]
	b.result.PValue = search.Fisher(first.evidence(), parents)
}

// confirmed tells whether a commit and its parents were tested as the answer.
func (b *bisection) confirmed(culprit kernel.Commit) bool {
	for _, hash := range append([]string{culprit.Hash}, culprit.Parents...) {
		if b.journal.tested(hash, RoleConfirm) == nil {
			return false
		}
	}
	return true
}

// confirming is the commit that was tested as the answer last, when nothing else
// was tested since: the one whose confirmation may have been cut short.
func (b *bisection) confirming() *kernel.Commit {
	var culprit *kernel.Commit
	for _, r := range b.journal.records {
		switch t := r.Tested; {
		case t == nil:
		case t.Role != RoleConfirm:
			culprit = nil
		case t.Confirms != "":
			if i, ok := b.journal.lineage.at[t.Confirms]; ok {
				culprit = &b.journal.lineage.commits[i]
			}
		case culprit == nil || !slices.Contains(culprit.Parents, t.Commit.Hash):
			culprit = &t.Commit
		}
	}
	return culprit
}

// confirm tests the culprit and its parents again. The culprit must be bad. A
// parent that is bad too contradicts the answer; one that can't be judged, as
// happens to those older than the good end, does not. What contradicts the tests
// before is weighed with them, unless the test is known to be steady.
func (b *bisection) confirm(ctx context.Context, culprit kernel.Commit) error {
	b.Progress.Say(b.words("the first %s commit would be %s; testing it and its %s again"), b.called(Bad), name(culprit), plural(len(culprit.Parents), b.words("parent")))
	b.drop(func(f *flight) bool { return f.r.Role != RoleConfirm })
	b.queue, b.answering = b.answer(ctx, culprit)[1:], culprit.Hash
	defer func() { b.queue = nil }()
	t, err := b.test(ctx, culprit, RoleConfirm, 1)
	if err != nil {
		return err
	}
	if t.Mark == Skip || t.Mark == Good && b.steady {
		b.result.Unclear = fmt.Sprintf("%s was %s and is %s when tested again (%s): the test is flaky, or what it tests is", name(culprit), b.called(Bad), b.called(t.Mark), t.Reason)
		return nil
	}
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
		_, inside := b.journal.lineage.at[hash]
		inside = inside || slices.ContainsFunc(b.result.Good, func(c kernel.Commit) bool { return c.Hash == hash })
		if t.Mark == Bad && (!inside || b.steady) {
			b.result.Unclear = fmt.Sprintf(b.words("%s is %s, but so is its parent %s (%s): the test is flaky, or it was so before the %s end too"), name(culprit), b.called(Bad), name(p), t.Reason, b.called(Good))
			return nil
		}
	}
	return nil
}

// end records the answer, and what proves it, unless it is on record, or something came in from
// elsewhere since the search began.
func (b *bisection) end(ctx context.Context) error {
	if err := b.proof(ctx); err != nil {
		return err
	}
	if n := len(b.journal.events); n > 0 && b.journal.events[n-1].Event == eventEnd {
		return nil
	}
	r := record{Event: eventEnd, Unclear: b.result.Unclear}
	if b.result.Culprit != nil {
		r.Culprit = b.result.Culprit.Hash
	}
	for _, c := range b.result.Suspects {
		r.Suspects = append(r.Suspects, c.Hash)
	}
	return b.journal.addEnd(r, b.foreign)
}
