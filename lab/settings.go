package lab

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"lab/kernel"
	"lab/kernel/kconfig"
	"lab/kernel/qemu"
	"lab/lab/search"
)

// Settings are bisected where kernel, image and test stay: of each kind that is
// not nil a good and a bad one. What is looked for is the smallest set of the
// differences between the two that makes good bad.
type Settings struct {
	Cmdline *SettingEnds // of the kernel's command line what stands behind Spec.Machine.Cmdline
	// Caps are the container's capabilities, as parseCaps reads them, in the place
	// of those that Spec.Test names.
	Caps *SettingEnds
	// Container is the rest of what a container has, in the words of
	// parseContainer, in the place of what Spec.Test says of the same.
	Container *SettingEnds
	// Config are kernel configurations: a kernel is built for each set.
	Config *ConfigEnds
}

// SettingEnds are the good and the bad setting of one kind, as the user writes them.
type SettingEnds struct{ Good, Bad string }

// A Difference is one thing in which the bad setting is not as the good one.
type Difference struct {
	Kind  string `json:"kind"` // config, cmdline, caps, container or hunk
	Name  string `json:"name"`
	Title string `json:"title,omitempty"` // what Kconfig calls an option
	Good  string `json:"good,omitempty"`  // as the good setting has it; empty where it does not
	Bad   string `json:"bad,omitempty"`   // as the bad one has it
}

func (d Difference) String() string {
	switch {
	case d.Good == "":
		return "+" + d.Bad
	case d.Bad == "":
		return "-" + d.Good
	case d.Good == d.Bad:
		return "moved:" + d.Bad
	}
	return d.Good + "->" + d.Bad
}

// A Flip is what a bisect of settings found: Minimal is the smallest set of the
// differences that flips the verdict, where one was found.
type Flip struct {
	Differences []Difference `json:"differences"` // all there are
	Minimal     []Difference `json:"minimal,omitempty"`
	// Unsure are those of Minimal without which the others could not be judged, so
	// that they may be there for no other reason.
	Unsure []Difference `json:"unsure,omitempty"`
	// Needed are those of Minimal that others of it cannot be made without: they may
	// be there for that alone.
	Needed []Difference `json:"needed,omitempty"`
	// Patch is, of hunks, what Minimal changes, as a diff on top of the parent.
	Patch string `json:"patch,omitempty"`
	// With is the test of the good setting with Minimal, made again at the end, and
	// Without that of the bad setting without it: of an answer bad and good.
	With    *Tested `json:"with,omitempty"`
	Without *Tested `json:"without,omitempty"`
}

// lines are those of a .config with which it is bad.
func (f Flip) lines() []string {
	var lines []string
	for _, d := range f.Minimal {
		lines = append(lines, cmp.Or(d.Bad, "# CONFIG_"+d.Name+" is not set"))
	}
	return lines
}

// A setup is what a trial with a set of differences is given.
type setup struct {
	Spec
	build kernel.BuildOptions // of its kernel, where there is not one for all sets
}

// A knob is one kind of setting: how good and bad differ in it, and how a
// trial gets it with some of the differences.
type knob struct {
	kind  string
	list  []Difference
	needs map[int][]int // of a difference, by index: those without which it cannot be made
	apply func(s *setup, has func(i int) bool)
	// builds says that each set has a kernel of its own. resolve then, where it is
	// not nil, sees what becomes of the setup before anything is compiled.
	builds  bool
	resolve func(ctx context.Context, s *setup, has func(i int) bool) (resolved, error)
}

// resolved is what becomes of a set.
type resolved struct {
	along []kconfig.Change // what is otherwise than the set says
	lost  string           // why it cannot be made; empty where it can
}

// settings is the axis of sets of differences. The bisect knows each set as a
// commit: by a digest of what the trial is then given, and a title that names the
// differences.
type settings struct {
	row
	spec        Spec
	kernel      constant
	knobs       []knob
	differences []Difference // of all knobs, one behind the other
	deltas      []search.Delta
	all         []int
	// try gives the trial of a set as far as it goes without a guest.
	try func(ctx context.Context, set []int) (Trial, error)
}

// Validate names the first thing that can be seen not to be around a spec, before
// any configuration is resolved.
func (s Settings) Validate(spec Spec) error {
	knobs, err := s.knobs()
	if err == nil && s.Config == nil {
		_, err = newSettings(spec, knobs)
	}
	return err
}

// knobs are those of the settings that are compared as they are written.
func (s Settings) knobs() ([]knob, error) {
	var knobs []knob
	s, err := s.parted()
	if err != nil {
		return nil, err
	}
	for _, kind := range []struct {
		ends *SettingEnds
		knob func(SettingEnds) (knob, error)
	}{{s.Cmdline, cmdlineKnob}, {s.Caps, capsKnob}, {s.Container, containerKnob}} {
		if kind.ends == nil {
			continue
		}
		k, err := kind.knob(*kind.ends)
		if err != nil {
			return nil, err
		}
		knobs = append(knobs, k)
	}
	return knobs, nil
}

// openSettings finds how the settings differ, and the kernel.
func (l *Lab) openSettings(ctx context.Context, o BisectOptions) (*settings, error) {
	if !o.Spec.needsGuest() && o.Settings.Config == nil {
		return nil, errors.New("settings are bisected by a test in a guest")
	}
	knobs, err := o.Settings.knobs()
	if err != nil {
		return nil, err
	}
	k, err := l.source(ctx, o.Spec)
	if err != nil {
		return nil, err
	}
	if ends := o.Settings.Config; ends != nil {
		var of knob
		if of, err = l.configKnob(ctx, &k, *ends, o.Spec.Kernel.Config); err == nil {
			knobs = append([]knob{of}, knobs...)
		}
	}
	var s *settings
	if err == nil {
		s, err = newSettings(o.Spec, knobs)
	}
	if err != nil {
		k.Close()
		return nil, err
	}
	s.kernel.source = k
	return s, nil
}

func newSettings(spec Spec, knobs []knob) (*settings, error) {
	s := &settings{row: row{what: "setting"}, spec: spec, knobs: knobs}
	s.try = s.kernelOf
	for _, k := range s.knobs {
		first := len(s.differences)
		s.differences = append(s.differences, k.list...)
		seen := map[string]int{}
		for i, d := range k.list {
			delta := search.Delta{ID: d.String()}
			if seen[delta.ID]++; seen[delta.ID] > 1 {
				delta.ID = fmt.Sprintf("%s#%d", d, seen[delta.ID])
			}
			for _, n := range k.needs[i] {
				delta.Needs = append(delta.Needs, first+n)
			}
			s.deltas = append(s.deltas, delta)
			s.all = append(s.all, first+i)
		}
	}
	if len(s.deltas) == 0 {
		return nil, errors.New("the good and the bad setting are the same: there is nothing to bisect")
	}
	for _, set := range [][]int{nil, s.all} {
		c := s.commit(set)
		s.add(c.Hash, c.Title)
	}
	if s.commits[0].Hash == s.commits[1].Hash {
		return nil, errors.New("the good and the bad setting come to the same, with what both have in common")
	}
	s.commits[0].Title, s.commits[1].Title = "the good setting", "the bad setting"
	return s, s.checkCmdline()
}

// checkCmdline refuses settings of which some set makes a command line that no
// kernel takes.
func (s *settings) checkCmdline() error {
	var longest []int
	for i, d := range s.differences {
		if d.Kind == "cmdline" && len(d.Bad) > len(d.Good) {
			longest = append(longest, i)
		}
	}
	if n := len(cmdline(s.with(longest).Machine.Cmdline)); n > qemu.MaxCmdline {
		return fmt.Errorf("with %s more the kernel's command line would have %d bytes, lab's own options among them, and it takes %d", plural(len(longest), "option"), n, qemu.MaxCmdline)
	}
	return nil
}

// with gives the setup of a trial with a set of differences.
func (s *settings) with(set []int) setup {
	made := setup{Spec: s.spec, build: s.kernel.options}
	s.each(set, func(k knob, has func(int) bool) { k.apply(&made, has) })
	return made
}

// each calls use for each knob with what tells of its differences that are in a set.
func (s *settings) each(set []int, use func(k knob, has func(int) bool)) {
	in := make([]bool, len(s.differences))
	for _, i := range set {
		in[i] = true
	}
	for _, k := range s.knobs {
		mine := in[:len(k.list)]
		in = in[len(k.list):]
		use(k, func(i int) bool { return mine[i] })
	}
}

// unit is what a set is made of.
func (s *settings) unit() string {
	if s.what == "hunk" {
		return s.what
	}
	return "difference"
}

// builds tells whether sets have kernels of their own.
func (s *settings) builds() bool {
	return slices.ContainsFunc(s.knobs, func(k knob) bool { return k.builds })
}

// stepSet is the step of a Failure in which a set cannot be made.
const stepSet = "set"

// kernelOf gives a set's kernel: the one that all have in common, or one that is
// built for it.
func (s *settings) kernelOf(ctx context.Context, set []int) (Trial, error) {
	if !s.builds() {
		return s.kernel.trial(ctx)
	}
	made := s.with(set)
	var became resolved
	var err error
	s.each(set, func(k knob, has func(int) bool) {
		if k.resolve != nil && err == nil && became.lost == "" {
			became, err = k.resolve(ctx, &made, has)
		}
	})
	if err != nil {
		return Trial{}, err
	}
	if became.lost != "" {
		return Trial{End: EndBuild, Failure: &kernel.Failure{Step: stepSet, Line: became.lost}, Detail: became.lost}, nil
	}
	k := s.kernel.source
	if k.options = made.build; s.spec.needsGuest() {
		k.options.Refuse = k.refuse(made.Spec)
	}
	t, err := k.trial(ctx)
	t.Drift = became.along
	return t, err
}

// around is what a set gives a trial beside its kernel.
func (m setup) around() []any {
	return []any{m.Machine.Cmdline, m.Test}
}

// commit is how the bisect knows a set.
func (s *settings) commit(set []int) kernel.Commit {
	made := s.with(set)
	what := made.around()
	if s.builds() {
		for _, f := range made.build.Fragments {
			what = append(what, sha256.Sum256(f.Data))
		}
		what = append(what, made.build.OnTop())
	}
	data, err := json.Marshal(what)
	if err != nil {
		panic(err) // strings can be encoded
	}
	c := kernel.Commit{Hash: fmt.Sprintf("sha256:%x", sha256.Sum256(data)), Title: s.title(set)}
	for _, end := range s.commits {
		if end.Hash == c.Hash {
			return end
		}
	}
	return c
}

// title names a set: cmdline -quiet +security=selinux.
func (s *settings) title(set []int) string {
	var words []string
	for _, kind := range s.kinds() {
		ids := s.ids(slices.DeleteFunc(slices.Clone(set), func(i int) bool { return s.differences[i].Kind != kind }))
		if len(ids) == 0 {
			continue
		}
		const most = 8
		if n := len(ids); n > most {
			ids = append(ids[:most:most], fmt.Sprintf("and %d more", n-most))
		}
		words = append(words, kind+" "+strings.Join(ids, " "))
	}
	return oneLine(strings.Join(words, ", "))
}

func (s *settings) kinds() []string {
	var kinds []string
	for _, k := range s.knobs {
		kinds = append(kinds, k.kind)
	}
	return kinds
}

func (s *settings) ids(set []int) []string {
	var ids []string
	for _, i := range set {
		ids = append(ids, s.deltas[i].ID)
	}
	return ids
}

// set is the set of these names.
func (s *settings) set(ids []string) []int {
	set := make([]int, 0, len(ids))
	for i, d := range s.deltas {
		if slices.Contains(ids, d.ID) {
			set = append(set, i)
		}
	}
	return set
}

func (s *settings) pick(set []int) []Difference {
	var list []Difference
	for _, i := range set {
		list = append(list, s.differences[i])
	}
	return list
}

// known gives all tests that count, but for those of the answer: what contradicts
// it must not begin another search. A verdict by hand has the set of the test that
// it stands for.
func (s *settings) known(j *journal) []search.SetTest {
	sets := map[string][]int{s.commits[0].Hash: {}, s.commits[1].Hash: s.all}
	for _, e := range j.events {
		if t := e.Tested; t != nil && len(t.Set) > 0 {
			sets[t.Commit.Hash] = s.set(t.Set)
		}
	}
	var list []search.SetTest
	for _, r := range j.records {
		t := r.Tested
		if t == nil || t.Role == RoleConfirm && !t.ByHand {
			continue
		}
		if set, ok := sets[t.Commit.Hash]; ok {
			list = append(list, search.SetTest{Set: set, Mark: searchMark(t.Mark)})
		}
	}
	return list
}

// sets are those that a bisect of settings has tested, beside its ends: all that
// there could be are in no range.
func (s *Saved) sets() []kernel.Commit {
	var list []kernel.Commit
	for _, e := range s.journal.events {
		if t := e.Tested; t != nil && len(t.Set) > 0 && t.Commit.Hash != s.Bad.Hash &&
			!slices.ContainsFunc(list, func(c kernel.Commit) bool { return c.Hash == t.Commit.Hash }) {
			list = append(list, t.Commit)
		}
	}
	return list
}

// without is the bad setting's set without another one, and without what needs
// any of that.
func (s *settings) without(set []int) []int {
	gone := make([]bool, len(s.deltas))
	for _, i := range set {
		gone[i] = true
	}
	for more := true; more; {
		more = false
		for i, d := range s.deltas {
			if !gone[i] && slices.ContainsFunc(d.Needs, func(n int) bool { return gone[n] }) {
				gone[i], more = true, true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(s.all), func(i int) bool { return gone[i] })
}

func (s *settings) ends(_ context.Context, _ BisectOptions, r *Bisection) ([]kernel.Commit, error) {
	r.Good, r.Bad, r.Range = s.commits[:1], s.commits[1], len(s.deltas)
	r.Flip = &Flip{Differences: s.differences}
	return s.commits[1:], nil
}

func (s *settings) identity() []string {
	// The ends' hashes tell what is in the files that are named.
	return append([]string{"kernel " + s.kernel.name(), s.commits[0].Hash, s.commits[1].Hash}, s.ids(s.all)...)
}

// trial gets the one kernel.
func (s *settings) trial(ctx context.Context, _ kernel.Commit) (Trial, error) {
	return s.kernel.trial(ctx)
}

func (s *settings) Close() error {
	s.kernel.Close()
	return nil
}

// A constant is the one kernel of a bisect over something else, built once.
type constant struct {
	source
	built *Trial
}

// name is that of the kernel, for the bisect's key.
func (k *constant) name() string {
	if k.ready.Digest != "" {
		return k.ready.Digest
	}
	return k.commit.Hash
}

func (k *constant) trial(ctx context.Context) (Trial, error) {
	if k.built == nil {
		t, err := k.source.trial(ctx)
		if err != nil {
			return Trial{}, err
		}
		k.built = &t
	}
	t := *k.built
	k.built.Cached, k.built.Build = true, 0
	return t, nil
}
