package lab

import (
	"context"
	"runtime"
	"slices"
	"sync"

	"lab/kernel"
	"lab/lab/search"
)

// ahead builds, while a kernel boots and its test runs, the kernels that the
// bisect is likely to want next. They go to the cache, and nowhere else: what the
// bisect does is the same without them, only later. Whatever goes wrong with one,
// the build in earnest will tell, should there be one.
type ahead struct {
	cancel  context.CancelFunc
	planned chan struct{} // closed when it is known what to build
	done    chan struct{} // closed when nothing is built any more

	mu   sync.Mutex
	todo []kernel.Commit
	now  string // hash of the commit that is being built
}

// lookAhead begins to build what is wanted after a test, whose kernel is about to
// boot; seen has all that is known of the test by now. Before anything more is
// learned, settle is called.
//
// One processor is busy with the guest. Where there is no other, nothing is gained.
func (b *bisection) lookAhead(ctx context.Context, seen Tested) {
	if b.tree == nil || runtime.GOMAXPROCS(0) < 2 {
		return
	}
	before := b.ahead
	ctx, cancel := context.WithCancel(ctx)
	a := &ahead{cancel: cancel, planned: make(chan struct{}), done: make(chan struct{})}
	b.ahead = a
	go func() {
		defer close(a.done)
		plan, err := b.foresee(ctx, seen)
		close(a.planned)
		before.yield(plan)
		if err != nil {
			return
		}
		a.mu.Lock()
		a.todo = plan
		a.mu.Unlock()
		for c, more := a.next(); more; c, more = a.next() {
			if b.buildAhead(ctx, c, seen.Commit.Hash) != nil {
				return
			}
		}
	}()
}

// buildAhead builds a commit's kernel for later. It says so in prepared from the
// beginning on, for whoever comes to wait for it.
func (b *bisection) buildAhead(ctx context.Context, c kernel.Commit, during string) error {
	_, known := b.prepared.LoadOrStore(c.Hash, during)
	o := b.options
	o.Ahead, o.Notice = true, nil
	_, _, cached, err := b.tree.Build(ctx, c.Hash, o)
	if !known && (cached || err != nil) {
		b.prepared.Delete(c.Hash)
	}
	return err
}

// preparing names the commit during whose test a kernel was built ahead of time,
// or begun to be; empty when it was not. It is told once. Nothing else is begun
// from now on.
func (b *bisection) preparing(c kernel.Commit) (during string) {
	b.ahead.drop()
	if name, ok := b.prepared.LoadAndDelete(c.Hash); ok {
		during, _ = name.(string)
	}
	return during
}

func (a *ahead) next() (c kernel.Commit, more bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.todo) == 0 {
		return c, false
	}
	c = a.todo[0]
	a.todo, a.now = a.todo[1:], c.Hash
	return c, true
}

// settle waits until everything is read that the plan depends on.
func (a *ahead) settle() {
	if a != nil {
		<-a.planned
	}
}

// drop leaves it at what is being built, and names that.
func (a *ahead) drop() (hash string) {
	if a == nil {
		return ""
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.todo = nil
	return a.now
}

// yield returns when nothing is built any more. Only what is in a newer plan is
// first built to its end.
func (a *ahead) yield(plan []kernel.Commit) {
	if a == nil {
		return
	}
	now := a.drop()
	if !slices.ContainsFunc(plan, func(c kernel.Commit) bool { return c.Hash == now }) {
		a.cancel()
	}
	<-a.done
	a.cancel()
}

// foresee lists the commits whose kernels are wanted next, the likeliest first:
// those that are tested in any case, or those that the search chooses when the
// test comes out good, and when it comes out bad.
func (b *bisection) foresee(ctx context.Context, seen Tested) ([]kernel.Commit, error) {
	if len(b.queue) > 0 {
		return slices.Clone(b.queue), nil
	}
	if seen.Role != RoleEnd && seen.Role != RoleStep {
		return nil, nil
	}
	if err := b.vain.read(ctx, b.tree, b.commits); err != nil {
		return nil, err
	}
	bad, toGo, err := b.future(ctx, seen, Bad)
	if err != nil || seen.Role == RoleEnd {
		return bad, err
	}
	good, more, err := b.future(ctx, seen, Good)
	if err != nil {
		return nil, err
	}
	// The first bad commit is one of those left as likely as another, and the more
	// there are left, the more tests there are to go.
	if more > toGo {
		return append(good, bad...), nil
	}
	return append(bad, good...), nil
}

// future gives the commits that are built next when a test has that outcome, and
// how many tests would then be to go. Verdicts that are inferred on
// the way are taken for given. Where Kconfig has to be asked, the future is open.
func (b *bisection) future(ctx context.Context, seen Tested, mark Mark) (plan []kernel.Commit, toGo int, err error) {
	seen.Mark = mark
	witnesses := append([]*Tested{&seen}, b.witnesses()...)
	candidates, marks := slices.Clone(b.candidates), slices.Clone(b.marks)
	by, err := b.lastPrints(ctx, witnesses)
	if err != nil {
		return nil, 0, err
	}
	for i := range candidates {
		candidates[i].Inert = b.vain.inert(candidates[i].ID, by)
		if seen.Role == RoleStep && candidates[i].ID == seen.Commit.Hash {
			marks[i] = searchMark(mark)
		}
	}
	for {
		step := search.Next(candidates, marks)
		toGo = max(toGo, step.Steps)
		if step.Culprit >= 0 {
			return b.answer(ctx, b.commits[step.Culprit]), toGo, nil
		}
		if step.Test < 0 {
			return nil, toGo, nil
		}
		c := b.commits[step.Test]
		same, touched, err := b.twin(ctx, c, witnesses)
		if err != nil || touched {
			return nil, toGo, err
		}
		if same == nil {
			return []kernel.Commit{c}, toGo, nil
		}
		marks[step.Test] = searchMark(same.Mark)
	}
}

// answer lists what is tested again when that commit is the first bad one.
func (b *bisection) answer(ctx context.Context, culprit kernel.Commit) []kernel.Commit {
	list := []kernel.Commit{culprit}
	for _, hash := range culprit.Parents {
		if p, err := b.resolve(ctx, hash); err == nil {
			list = append(list, p)
		}
	}
	return list
}
