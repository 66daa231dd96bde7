package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"lab/kernel"
	"lab/lab/search"
)

// A flight is a test under way, of which a bisect may have several. It does its
// work in a goroutine of its own, with what it is given at the start; what
// comes of it is judged and recorded when it lands, by the bisect's own goroutine,
// which alone has the journal.
//
// What comes before a test's boot — a build, a package that is unpacked, a disk
// that is written — is done by one flight at a time: a build takes all processors,
// and is soonest done in the one work tree that has the objects of the last one.
type flight struct {
	r         Tested        // what is known of it by now
	files     kernel.Commit // the commit whose files a command gets
	during    string        // during whose test the kernel was built ahead of time
	known     []record      // the verdicts that counted when it began
	slot      int           // no other flight has the same at the same time; from 0
	began     time.Time
	preparing atomic.Bool // it is not yet at its boot, or its command
	dropped   bool        // nobody wants to know any more
	cancel    context.CancelFunc
	trial     Trial
	err       error
}

// takeOff begins a commit's test, unless the verdict can be told without one: then
// that is on record, and returned.
func (b *bisection) takeOff(ctx context.Context, c kernel.Commit, role string, left int) (*Tested, error) {
	r := Tested{Commit: c, Role: role, Left: left}
	if role == RoleConfirm && c.Hash != b.answering {
		r.Confirms = b.answering
	}
	if err := b.journal.hold(append(b.inFlight(), c.Hash)...); err != nil {
		return nil, err
	}
	files := c
	told, err := b.foretold(ctx, &r, &files)
	if err != nil {
		return nil, err
	}
	if told != nil {
		return told, b.record(told)
	}
	f := &flight{r: r, files: files, known: b.journal.records, began: time.Now(), slot: b.freeSlot()}
	f.preparing.Store(b.commands == nil)
	if b.commands == nil {
		f.during = b.preparing(c)
	}
	ctx, f.cancel = context.WithCancel(ctx)
	b.flights = append(b.flights, f)
	go func() {
		f.err = b.fly(ctx, f)
		b.landed <- f
	}()
	return nil, nil
}

// foretold is the verdict of a commit that needs no test: of one with the same
// files as another, or whose kernel would be the same; or that gives no files, as
// what is put on top of it does not apply. files is set to the commit that has them.
func (b *bisection) foretold(ctx context.Context, r *Tested, files *kernel.Commit) (*Tested, error) {
	switch {
	case b.commands != nil && !b.spec.Command.NoCheckout:
		top, failure, err := b.commands.tree.OnTop(ctx, r.Commit.Hash, b.options)
		if err != nil {
			return nil, err
		}
		if failure != nil {
			t := Trial{End: EndBuild, Failure: failure, Detail: oneLine(failure.Line)}
			told := *r
			told.Verdict, told.End = b.judge(t), t.End
			return &told, nil
		}
		if r.Tree, err = b.commands.tree.TreeHash(ctx, top.Commit); err != nil {
			return nil, err
		}
		files.Hash = top.Commit
		if same := b.sameTree(*r); same != nil {
			told := *r
			told.Verdict, told.End, told.Exit, told.Inferred = same.Verdict, same.End, same.Exit, same.Commit.Hash
			return &told, nil
		}
	case r.Role == RoleStep && b.tree != nil:
		return b.infer(ctx, r.Commit, r.Left)
	}
	return nil, nil
}

// inFlight are the hashes of what is being tested, the oldest first.
func (b *bisection) inFlight() (hashes []string) {
	for _, f := range b.flights {
		if !f.dropped {
			hashes = append(hashes, f.r.Commit.Hash)
		}
	}
	return hashes
}

func (b *bisection) freeSlot() int {
	for slot := 0; ; slot++ {
		if !slices.ContainsFunc(b.flights, func(f *flight) bool { return f.slot == slot }) {
			return slot
		}
	}
}

// room is how many tests more can begin now. One that was dropped takes its
// place until it has really ended.
func (b *bisection) room() int {
	if slices.ContainsFunc(b.flights, func(f *flight) bool { return f.preparing.Load() }) {
		return 0
	}
	free := max(0, b.jobs-len(b.flights))
	if b.commands == nil {
		free = min(free, 1)
	}
	return free
}

// fly does a test: all but its judgement.
func (b *bisection) fly(ctx context.Context, f *flight) (err error) {
	if b.commands != nil {
		f.trial, err = b.runCommand(ctx, f.files, f.slot)
		return err
	}
	defer b.readied(f)
	if f.trial, err = b.trial(ctx, f.r.Commit); err != nil {
		return err
	}
	t, r := &f.trial, &f.r
	if r.Modules, err = digestModules(t.Kernel.Modules); err != nil {
		return err
	}
	if err := b.drift(t); err != nil {
		return err
	}
	r.Kernel, r.Drift, r.OnTop, r.Cached = t.Kernel.Digest, len(t.Drift), t.Kernel.OnTop, t.Cached
	if t.Failure != nil && t.Failure.Hint != nil {
		r.Known = t.Failure.Hint.Kind
	}
	if t.Cached {
		r.Prepared = f.during
	}
	g, err := b.guestOf(ctx, r, f.known)
	if err != nil {
		return err
	}
	if same := sameBytes(f.known, *t, *r); same != nil {
		r.Verdict, r.End, r.Exit, r.Inferred, r.Build = same.Verdict, same.End, same.Exit, same.Commit.Hash, t.Build
		return nil
	}
	if t.End != EndBuilt || !b.spec.needsGuest() {
		return nil
	}
	g = b.repeated(g, *r, f.known)
	if b.jobs > 1 {
		b.readied(f)
		return b.tryOn(ctx, b.spec, g, t)
	}
	b.lookAhead(ctx, *r)
	defer b.ahead.settle()
	return b.tryOn(ctx, b.spec, g, t)
}

// readied tells that a flight is at its boot, so that the next one may begin.
func (b *bisection) readied(f *flight) {
	if f.preparing.Swap(false) {
		select {
		case b.ready <- struct{}{}:
		default: // it is told already
		}
	}
}

// await waits until a flight has landed, and records its verdict; nil where
// there is no verdict, but room for another flight, or the time is up, which 0 has
// without end.
func (b *bisection) await(ctx context.Context, most time.Duration) (*Tested, error) {
	var over <-chan time.Time
	if most > 0 {
		over = time.After(most)
	}
	select {
	case <-over:
		return nil, nil
	case <-b.ready:
		return nil, nil
	case f := <-b.landed:
		return b.land(ctx, f)
	}
}

// land judges and records what a flight has seen.
func (b *bisection) land(ctx context.Context, f *flight) (*Tested, error) {
	f.cancel()
	b.flights = slices.DeleteFunc(b.flights, func(o *flight) bool { return o == f })
	if !f.dropped {
		b.flown = append(b.flown, time.Since(f.began))
	}
	switch {
	case f.dropped:
		return nil, nil
	case f.err != nil:
		return nil, f.err
	}
	t, r := f.trial, &f.r
	if r.Inferred == "" {
		if err := b.checkCommand(t, *r); err != nil {
			return nil, err
		}
		r.Verdict, r.End, r.Exit = b.judge(t), t.End, exitOf(t)
		r.Build, r.Boot, r.Test, r.Restored = t.Build, t.Boot, t.Test, t.Restored
		var err error
		if r.Dir, err = b.save(t, r.Commit); err != nil {
			return nil, err
		}
		if again, err := b.asked(ctx, t, r); err != nil {
			return nil, err
		} else if again {
			return b.takeOff(ctx, r.Commit, r.Role, r.Left)
		}
	}
	return r, b.record(r)
}

// isFlying tells whether a commit is being tested in that role.
func (b *bisection) isFlying(c kernel.Commit, role string) bool {
	return slices.ContainsFunc(b.flights, func(f *flight) bool { return !f.dropped && f.r.Commit.Hash == c.Hash && f.r.Role == role })
}

// drop ends the flights that nobody wants to know of any more.
func (b *bisection) drop(unwanted func(f *flight) bool) {
	for _, f := range b.flights {
		if !f.dropped && unwanted(f) {
			f.dropped = true
			f.cancel()
			b.Progress.Say("  %s: ended before its time; it would tell nothing any more", brief(f.r.Commit))
		}
	}
}

// ground ends all flights, and returns when nothing of them is left.
func (b *bisection) ground() {
	for _, f := range b.flights {
		f.cancel()
	}
	for range b.flights {
		<-b.landed
	}
	b.flights = nil
}

// A round is a step of the search with as many tests at a time as there may be.
type round struct {
	search.Search
	search.Step
	evidence []search.Evidence
	commits  []kernel.Commit // that the indexes mean
	role     func(c kernel.Commit) string
	tell     func(c kernel.Commit, why string)
}

// round begins as many tests as there is room for, those that tell most
// together; ends those that the last verdict has left in vain, unless they are
// all but done; and returns when something has come in.
func (b *bisection) round(ctx context.Context, r round) error {
	at := map[string]int{}
	for i, c := range r.commits {
		at[c.Hash] = i
	}
	b.drop(func(f *flight) bool {
		i, in := at[f.r.Commit.Hash]
		return !in || r.Vain(r.evidence, []int{i})[0] && !b.nearlyDone(f)
	})
	if wait := b.landing(); wait > 0 {
		_, err := b.await(ctx, wait)
		return err
	}
	var running []int
	for _, hash := range b.inFlight() {
		running = append(running, at[hash])
	}
	for _, i := range r.Together(r.evidence, running, len(running)+b.room()) {
		c, why := r.commits[i], r.Why
		if beside := b.inFlight(); len(beside) > 0 {
			why = "tells most beside " + plural(len(beside), "other") + " that " + isAre(len(beside)) + " under way"
		}
		r.tell(c, b.words(why))
		if told, err := b.takeOff(ctx, c, r.role(c), r.Left); err != nil || told != nil {
			return err
		}
	}
	_, err := b.await(ctx, 0)
	return err
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// nearlyDone tells of a flight that is in the last fifth of its time, as far as
// those before it tell.
func (b *bisection) nearlyDone(f *flight) bool {
	return len(b.flown) > 0 && time.Since(f.began).Seconds() > .8*mean(b.flown)
}

// landing is how long to wait for flights that are nearly done before others are
// chosen: what is chosen without their verdicts tells less. Tests that take the
// same time so stay together. 0 is not at all: none is near, or it is late.
func (b *bisection) landing() (wait time.Duration) {
	usual := time.Duration(1.1 * mean(b.flown) * float64(time.Second))
	for _, f := range b.flights {
		if !f.dropped && b.nearlyDone(f) {
			wait = max(wait, usual-time.Since(f.began))
		}
	}
	return wait
}

// brief is a commit in few words, for a line about one of several.
func brief(c kernel.Commit) string {
	if isPackageHash(c.Hash) {
		return oneLine(c.Title)
	}
	return short(c.Hash)
}

// voices are how far the trials under way are, each in its own words.
type voices struct {
	of    []string // commits, in the order in which they began to speak
	lines []string
}

// show tells how far the trial of a commit is, beside those of others. An empty
// line is its last.
func (l *Lab) show(of, format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	l.saying.Lock()
	v := &l.voices
	i := slices.Index(v.of, of)
	switch {
	case i >= 0 && line == "":
		v.of, v.lines = slices.Delete(v.of, i, i+1), slices.Delete(v.lines, i, i+1)
	case i >= 0:
		v.lines[i] = line
	case line != "":
		v.of, v.lines = append(v.of, of), append(v.lines, line)
	}
	line = strings.Join(v.lines, " | ")
	l.saying.Unlock()
	l.Progress.Show("%s", line)
}
