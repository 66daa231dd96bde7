package kconfig

// A State is what became of a feature in a configuration.
type State string

// The states. A module counts as present for all but lab's guest, which loads
// only what comes along in its initramfs.
const (
	BuiltIn    State = "built in"            // =y
	Module     State = "module"              // =m
	Missing    State = "missing"             // not set
	Unloadable State = "unloadable"          // =m, where the guest has nothing to load it from
	NotThere   State = "not in this version" // of Linux
)

// A Finding is what a configuration has of one feature.
type Finding struct {
	Group  string `json:"group"`
	Symbol string `json:"symbol"` // without CONFIG_
	State  State  `json:"state"`
	Level  Level  `json:"level"`
	Why    string `json:"why"`
	Source string `json:"source"` // where it is known that it is needed
}

// Lacking reports whether a kernel with this finding lacks the feature. That a
// version of Linux does not know a symbol is no lack.
func (f Finding) Lacking() bool { return f.State == Missing || f.State == Unloadable }

// Modules says which modules lab's guest can load.
type Modules struct {
	Known  bool     // Loaded is all there is; else any module is believed to be there
	Loaded []string // by the names that the kernel has for them
}

// Check says feature by feature what a kernel of that version and resolved
// configuration can do for lab's guest and for containers, group after group.
func Check(c Config, v Version, m Modules) []Finding {
	var findings []Finding
	channelled := false
	for _, f := range features {
		if !channelled && f.group != groupGuest && f.group != groupMachine {
			channelled = true
			findings = append(findings, m.channel(c))
		}
		findings = append(findings, Finding{Group: f.group, Symbol: f.symbol, State: f.state(c, v, m), Level: f.level, Why: f.why, Source: f.source})
	}
	return findings
}

// state: a symbol that is set is there, whatever the table says of its versions,
// because distributions take features back to older kernels.
func (f feature) state(c Config, v Version, m Modules) State {
	guest := f.group == groupGuest || f.group == groupMachine
	switch value := c[f.symbol]; {
	case value == "y":
		return BuiltIn
	case value == "m" && guest && (f.module == "" || m.Known && !f.met(c, m.Loaded)):
		return Unloadable
	case value == "m":
		return Module
	case !v.in(f.since, f.until):
		return NotThere
	}
	return Missing
}

// channel finds the way out for a test's results, which is one of two.
func (m Modules) channel(c Config) Finding {
	f := feature{groupMachine, need{"VIRTIO_CONSOLE", "virtio_console", "the test's results come over a virtio-serial port"}, Required, "", "", fromLab}
	found := Finding{Group: f.group, Symbol: f.symbol, State: f.state(c, Version{}, m), Level: f.level, Why: f.why, Source: f.source}
	if found.Lacking() && channel(c, nil) {
		found.Symbol, found.State, found.Why = "SERIAL_8250", BuiltIn, "the test's results come over the second serial port, for want of CONFIG_VIRTIO_CONSOLE"
	}
	return found
}
