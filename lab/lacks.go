package lab

import (
	"slices"
	"strings"

	"lab/kernel"
	"lab/kernel/kconfig"
	"lab/oci"
	"lab/probe"
)

// A want is an option of the kernel's configuration, and what of the test's
// container it is for.
type want struct{ symbol, of string }

// wants are what a test asks a kernel for by name, without which it cannot be run,
// and what its container has for the asking, and is run without: the agent then
// says so.
func wants(t probe.Spec) (must, may []want) {
	if t.Terminal != nil && t.Terminal.TTY {
		must = append(must, want{"UNIX98_PTYS", "a terminal"}, want{"UNIX", "a terminal"})
	}
	if t.Init != "" { // README of systemd 252, "REQUIREMENTS"
		for _, symbol := range []string{"CGROUPS", "EPOLL", "INOTIFY_USER", "SIGNALFD", "TIMERFD", "UNIX"} {
			must = append(must, want{symbol, t.Init})
		}
	}
	if t.Guest { // there is no container
		return must, may
	}
	must = append(must, want{"MULTIUSER", "users other than root"})
	if t.UserNS {
		must = append(must, want{"USER_NS", "a user namespace"})
	}
	switch t.Cgroup {
	case "1", "2":
		must = append(must, want{"CGROUPS", "control groups of version " + t.Cgroup})
	case "":
		may = append(may, want{"CGROUPS", "control groups"})
	}
	switch {
	case t.Seccomp == probe.SeccompUnconfined || t.Seccomp == "" && t.Privileged:
	case t.Seccomp != "":
		must = append(must, want{"SECCOMP_FILTER", "the seccomp profile " + t.Seccomp})
	default:
		may = append(may, want{"SECCOMP_FILTER", "a filter of system calls"})
	}
	own := []want{
		{"PID_NS", "process numbers of its own"}, {"NET_NS", "a network of its own"},
		{"IPC_NS", "System V IPC of its own"}, {"UTS_NS", "a host name of its own"},
	}
	if t.Runtime != "" {
		for _, w := range own {
			must = append(must, want{w.symbol, t.Runtime})
		}
		if slices.Contains(oci.Engines, t.Runtime) {
			may = append(may, want{"OVERLAY_FS", t.Runtime + "'s own storage"})
		}
		return append(must, want{"CGROUPS", t.Runtime}), may
	}
	may = append(may, own...)
	if t.SELinuxFS != "" || len(t.SELinuxPolicy) > 0 {
		may = append(may, want{"SECURITY_SELINUX", "SELinux"})
	}
	return must, may
}

// missing names those that a configuration lacks. Of an option that was always
// there before it could be chosen (MULTIUSER, Linux 4.1) nothing is said by a
// configuration that does not know it.
func missing(c kconfig.Config, list []want) (lines, symbols []string) {
	for _, w := range list {
		value, known := c[w.symbol]
		if value == "y" || value == "m" || !known && w.symbol == "MULTIUSER" {
			continue
		}
		lines = append(lines, "CONFIG_"+w.symbol+" for "+w.of)
		if !slices.Contains(symbols, w.symbol) {
			symbols = append(symbols, w.symbol)
		}
	}
	return lines, symbols
}

// shortfall says where a trial of a kernel of that configuration and with those
// modules would end, and why, so that a missing option is named instead of a hang:
// EndBoot where the guest cannot come up, EndSetup where the test cannot be started.
func shortfall(c kconfig.Config, modules []string, s Spec) (end End, detail string) {
	if lacks := kconfig.Guest(c, modules...); len(lacks) > 0 {
		return EndBoot, "its config lacks what the guest needs: " + some(lacks, 8)
	}
	must, _ := wants(s.Test)
	lines, symbols := missing(c, must)
	if len(lines) == 0 {
		return EndBuilt, ""
	}
	detail = "its config lacks what the test needs: " + strings.Join(lines, ", ")
	if s.Kernel.Repo != "" {
		detail += "; --config FILE adds it, where FILE says CONFIG_" + strings.Join(symbols, "=y, CONFIG_") + "=y"
	}
	return EndSetup, detail
}

// refuse has kernels not compiled with which the test cannot be made, and says once
// what it will be made without.
func (l *Lab) refuse(s Spec) func(kconfig.Config) *kernel.Failure {
	return func(c kconfig.Config) *kernel.Failure {
		if end, detail := shortfall(c, nil, s); end != EndBuilt {
			return &kernel.Failure{Step: string(end), Line: detail}
		}
		_, may := wants(s.Test)
		if lines, _ := missing(c, may); len(lines) > 0 {
			l.notice("its config lacks what the container has elsewhere; the test runs without: " + strings.Join(lines, ", "))
		}
		return nil
	}
}

// checkConfig says whether a trial's kernel can be tried, judged by its configuration
// where it has one, and ends the trial where it cannot.
func checkConfig(s Spec, t *Trial) (bool, error) {
	c, modules, err := t.Kernel.Configuration()
	if err != nil || c == nil {
		return err == nil, err
	}
	end, detail := shortfall(c, modules, s)
	if end != EndBuilt {
		t.End, t.Detail = end, detail
	}
	return end == EndBuilt, nil
}
