package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lab/probe"
	"lab/probe/seccomp"
)

// privileged stands for all capabilities and unlocked.
const (
	privileged = "privileged"
	unlocked   = "devices,unmasked,writable"
)

// parted is the settings with the parts of what is privileged in its place, so that
// the one of them that matters is found.
func (s Settings) parted() (Settings, error) {
	var caps, container SettingEnds
	if s.Caps != nil {
		caps = *s.Caps
	}
	if s.Container != nil {
		container = *s.Container
	}
	found := false
	for _, end := range []struct {
		what            string
		caps, container *string
	}{{"good", &caps.Good, &container.Good}, {"bad", &caps.Bad, &container.Bad}} {
		words := splitWords(*end.container)
		rest := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == privileged })
		isCaps := strings.EqualFold(strings.TrimSpace(*end.caps), privileged)
		switch {
		case !isCaps && len(rest) == len(words):
			continue
		case !isCaps && strings.TrimSpace(*end.caps) != "":
			return s, fmt.Errorf("the %s container is privileged and has all capabilities: %s says otherwise", end.what, *end.caps)
		}
		if !slices.ContainsFunc(rest, func(w string) bool { return strings.HasPrefix(w, "seccomp=") }) {
			rest = append(rest, "seccomp="+probe.SeccompUnconfined)
		}
		*end.caps, *end.container, found = "ALL", strings.Join(append(rest, unlocked), ","), true
	}
	if found {
		s.Caps, s.Container = &caps, &container
	}
	return s, nil
}

// IsPrivileged says whether one of the ends is.
func (s Settings) IsPrivileged() bool {
	return s.Container != nil && slices.Contains(splitWords(s.Container.Good+","+s.Container.Bad), privileged)
}

// splitWords parts words at commas.
func splitWords(text string) []string {
	var words []string
	for w := range strings.SplitSeq(text, ",") {
		if w = strings.TrimSpace(w); w != "" {
			words = append(words, w)
		}
	}
	return words
}

// A piece is one word of a container's setting, and what it does to a test.
type piece struct {
	text string
	set  func(*probe.Spec)
}

// pieceNames are the names of parseContainer's words, in the order in which they are told.
var pieceNames = []string{"seccomp", "userns", "cgroup", "devices", "unmasked", "writable", "selinux-fs"}

// parseContainer reads a container's setting, words between commas, by their names:
// seccomp=default, seccomp=unconfined or seccomp=FILE, userns, cgroup=1, cgroup=2 or
// cgroup=none, devices, unmasked, writable, selinux-fs=rw (or ro, none): lab run has flags of the same names.
func parseContainer(text string) (map[string]piece, error) {
	pieces := map[string]piece{}
	for _, word := range splitWords(text) {
		name, value, hasValue := strings.Cut(word, "=")
		if _, ok := pieces[name]; ok {
			return nil, fmt.Errorf("%s is said twice", name)
		}
		p := piece{text: word}
		switch name {
		case "seccomp":
			var s probe.Spec
			if err := SetSeccomp(&s, value); err != nil {
				return nil, err
			}
			p.set = func(t *probe.Spec) { t.Seccomp, t.SeccompProfile = s.Seccomp, s.SeccompProfile }
		case "cgroup":
			if err := (probe.Spec{Cgroup: value}).Validate(); err != nil {
				return nil, err
			}
			p.set = func(t *probe.Spec) { t.Cgroup = value }
		case "selinux-fs":
			if err := (probe.Spec{SELinuxFS: value}).Validate(); err != nil {
				return nil, err
			}
			p.set = func(t *probe.Spec) { t.SELinuxFS = value }
		case "userns":
			p.set = func(t *probe.Spec) { t.UserNS = true }
		case "devices":
			p.set = func(t *probe.Spec) { t.Devices = true }
		case "unmasked":
			p.set = func(t *probe.Spec) { t.Unmasked = true }
		case "writable":
			p.set = func(t *probe.Spec) { t.Writable = true }
		default:
			return nil, fmt.Errorf("%q is unknown: want %s or %s", word, strings.Join(pieceNames, ", "), privileged)
		}
		if takes := name == "seccomp" || name == "cgroup" || name == "selinux-fs"; takes != (hasValue && value != "") {
			return nil, fmt.Errorf("%q: %s", word, map[bool]string{true: "want " + name + "=VALUE", false: name + " has no value"}[takes])
		}
		pieces[name] = p
	}
	return pieces, nil
}

// containerKnob compares two containers, as parseContainer reads them. A difference
// is a word that one has and the other has not, or has otherwise.
func containerKnob(e SettingEnds) (knob, error) {
	good, err := parseContainer(e.Good)
	if err != nil {
		return knob{}, fmt.Errorf("good container: %w", err)
	}
	bad, err := parseContainer(e.Bad)
	if err != nil {
		return knob{}, fmt.Errorf("bad container: %w", err)
	}
	k := knob{kind: "container"}
	at := map[string]int{}
	for _, name := range pieceNames {
		if good[name].text != bad[name].text {
			at[name] = len(k.list)
			k.list = append(k.list, Difference{Kind: k.kind, Name: name, Good: good[name].text, Bad: bad[name].text})
		}
	}
	k.apply = func(s *setup, has func(int) bool) {
		for _, name := range pieceNames {
			p := good[name]
			if i, differs := at[name]; differs && has(i) {
				p = bad[name]
			}
			if p.set != nil {
				p.set(&s.Test)
			}
		}
	}
	return k, nil
}

// SetSeccomp gives a test the filter of system calls that is meant: default or
// unconfined, or the file of a profile. Empty leaves it as it is.
func SetSeccomp(s *probe.Spec, profile string) error {
	switch profile {
	case "":
		return nil
	case probe.SeccompDefault, probe.SeccompUnconfined:
		s.Seccomp, s.SeccompProfile = profile, ""
		return nil
	}
	f, err := os.Open(profile)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%q is neither default nor unconfined, and no file", profile)
	}
	if err != nil {
		return fmt.Errorf("read seccomp profile: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, seccomp.MaxProfile+1))
	if err != nil {
		return fmt.Errorf("read seccomp profile: %w", err)
	}
	if err := seccomp.Check(data); err != nil {
		return fmt.Errorf("%s: %w", profile, err)
	}
	s.Seccomp, s.SeccompProfile = filepath.Base(profile), string(data)
	return nil
}
