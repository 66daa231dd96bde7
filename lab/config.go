package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"lab/kernel"
	"lab/kernel/kconfig"
)

// ConfigEnds are a good and a bad configuration: of each the names of fragments or
// whole .configs, as KernelSpec.Config has them, on top of which both have those of
// that.
type ConfigEnds struct{ Good, Bad []string }

// configKnob compares two configurations as Kconfig resolves them at the commit of
// k. A difference is an option that somebody chose; what follows from others'
// values does so in each set as well.
func (l *Lab) configKnob(ctx context.Context, k *source, ends ConfigEnds, common []string) (knob, error) {
	if k.tree == nil {
		return knob{}, errors.New("configurations are bisected by building kernels: a tree to build is missing")
	}
	if len(common) == 0 && (len(ends.Good) == 0 || len(ends.Bad) == 0) {
		return knob{}, errors.New("of two configurations both are to be named, or what they have in common")
	}
	good, err := l.resolveEnd(ctx, k, "good", slices.Concat(common, ends.Good))
	if err != nil {
		return knob{}, err
	}
	bad, err := l.resolveEnd(ctx, k, "bad", slices.Concat(common, ends.Bad))
	if err != nil {
		return knob{}, err
	}
	l.Progress.Show("reading the Kconfig files of %s", short(k.commit.Hash))
	tree, err := k.tree.Kconfig(ctx, k.commit.Hash, k.options)
	l.Progress.Show("")
	if ctx.Err() != nil {
		return knob{}, context.Cause(ctx)
	}
	if err != nil {
		l.notice(fmt.Sprintf("what depends on what is not known, so that more sets are tried: %v", err))
		tree = nil
	}
	c := configs{source: k, tree: tree, good: good, bad: bad, choices: tree.Choices(good, bad)}
	return c.knob(), nil
}

// resolveEnd has Kconfig resolve one of the two.
func (l *Lab) resolveEnd(ctx context.Context, k *source, what string, names []string) (kconfig.Config, error) {
	o := k.options
	var err error
	if o.Fragments, err = l.fragments(ctx, KernelSpec{Config: names}); err != nil {
		return nil, err
	}
	l.Progress.Show("resolving the %s configuration", what)
	defer l.Progress.Show("")
	r, f, err := k.tree.Configure(ctx, k.commit.Hash, o)
	if err == nil && f != nil {
		err = errors.New(f.Line)
	}
	if err != nil {
		return nil, fmt.Errorf("resolve the %s configuration %s: %w", what, strings.Join(names, ", "), err)
	}
	if len(r.Lost) > 0 {
		var lines []string
		for _, d := range r.Lost {
			lines = append(lines, d.String())
		}
		l.Progress.Say("the %s configuration: %s of what was asked for did not survive:\n  %s", what, plural(len(lines), "symbol"), some(lines, 6))
	}
	return kconfig.Parse(bytes.NewReader(r.Config))
}

// configs are two resolved configurations of one commit.
type configs struct {
	source    *source
	tree      *kconfig.Tree // nil where it does not read
	good, bad kconfig.Config
	choices   []kconfig.Choice
}

func (c configs) knob() knob {
	k := knob{kind: "config", needs: map[int][]int{}, builds: true}
	for i, choice := range c.choices {
		d := Difference{Kind: k.kind, Name: choice.Symbol, Title: choice.Prompt}
		if choice.Was != "" {
			d.Good = "CONFIG_" + choice.Symbol + "=" + choice.Was
		}
		if choice.Is != "" {
			d.Bad = "CONFIG_" + choice.Symbol + "=" + choice.Is
		}
		k.list = append(k.list, d)
		k.needs[i] = choice.Needs
	}
	k.apply = func(s *setup, has func(int) bool) {
		s.build.Fragments = []kconfig.Fragment{kconfig.Mix(c.good, c.bad, c.choices, has).File("set")}
	}
	k.resolve = c.resolve
	return k
}

// resolve has Kconfig say what a set comes to. The kernel is built by that, so that
// two sets which come to the same have one kernel.
func (c configs) resolve(ctx context.Context, s *setup, has func(int) bool) (resolved, error) {
	asked := kconfig.Mix(c.good, c.bad, c.choices, has)
	if maps.Equal(asked, c.good) || maps.Equal(asked, c.bad) {
		return resolved{}, nil // Kconfig has said already
	}
	c.source.Progress.Show("resolving the configuration")
	defer c.source.Progress.Show("")
	r, f, err := c.source.tree.Configure(ctx, c.source.commit.Hash, s.build)
	if err != nil {
		return resolved{}, err
	}
	if f != nil {
		return resolved{lost: f.Line}, nil
	}
	is, err := kconfig.Parse(bytes.NewReader(r.Config))
	if err != nil {
		return resolved{}, fmt.Errorf("read the resolved configuration: %w", err)
	}
	if lost := c.lost(is, r, has); len(lost) > 0 {
		return resolved{lost: "Kconfig does not allow it: " + some(lost, 3)}, nil
	}
	var became resolved
	for _, change := range kconfig.Drift(asked, is) {
		_, known := c.good[change.Symbol]
		if c.tree.CanChoose(change.Symbol) && (known || change.Is != "") { // a number of what is off is none
			became.along = append(became.along, change)
		}
	}
	s.build.Fragments = []kconfig.Fragment{{Name: "set", Data: r.Config}}
	return became, nil
}

// lost are those of a set's options that did not survive.
func (c configs) lost(is kconfig.Config, r kernel.Resolution, has func(int) bool) []string {
	var list []string
	for i, choice := range c.choices {
		if !has(i) || len(kconfig.Drift(
			kconfig.Config{choice.Symbol: is[choice.Symbol]}, kconfig.Config{choice.Symbol: c.bad[choice.Symbol]})) == 0 {
			continue
		}
		why := choice.Symbol
		for _, d := range r.Lost {
			if d.Symbol == choice.Symbol {
				why = d.String()
			}
		}
		list = append(list, why)
	}
	return list
}
