package lab

import (
	"slices"
	"strings"
	"testing"

	"lab/kernel/kconfig"
	"lab/probe"
)

// whole is a configuration that has all that the guest and any test needs.
func whole(t *testing.T) kconfig.Config {
	t.Helper()
	f, ok := kconfig.Builtin("container")
	if !ok {
		t.Fatal("there is no fragment container")
	}
	c, err := kconfig.Merge(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, implied := range []string{"EFI_PARTITION", "SECURITY_SELINUX"} {
		c[implied] = "y"
	}
	if lacks := kconfig.Guest(c); len(lacks) > 0 {
		t.Fatalf("it lacks %q", lacks)
	}
	return c
}

func TestShortfall(t *testing.T) {
	tty := &probe.Terminal{TTY: true}
	for _, test := range []struct {
		off    string // symbols, separated by spaces
		test   probe.Spec
		end    End
		detail []string
	}{
		{"", probe.Spec{UserNS: true, Cgroup: "1", Seccomp: "default", Terminal: tty, Runtime: "docker"}, EndBuilt, nil},
		{"OVERLAY_FS", probe.Spec{Runtime: "podman"}, EndBuilt, nil}, // its store is done without
		{"", probe.Spec{Init: "systemd"}, EndBuilt, nil},
		// What nobody asked for by name is not missed.
		{"PID_NS NET_NS CGROUPS SECCOMP_FILTER UNIX98_PTYS SECURITY_SELINUX AUDIT", probe.Spec{SELinuxFS: "rw"}, EndBuilt, nil},
		{"CGROUPS", probe.Spec{Cgroup: "none"}, EndBuilt, nil},
		{"SECCOMP_FILTER", probe.Spec{Seccomp: probe.SeccompUnconfined}, EndBuilt, nil},
		{"USER_NS", probe.Spec{UserNS: true}, EndSetup, []string{"CONFIG_USER_NS for a user namespace"}},
		{"CGROUPS", probe.Spec{Cgroup: "2"}, EndSetup, []string{"CONFIG_CGROUPS for control groups of version 2"}},
		{"SECCOMP_FILTER", probe.Spec{Seccomp: "mine.json"}, EndSetup, []string{"CONFIG_SECCOMP_FILTER for the seccomp profile mine.json"}},
		{"UNIX98_PTYS UNIX", probe.Spec{Terminal: tty}, EndSetup, []string{"CONFIG_UNIX98_PTYS for a terminal", "CONFIG_UNIX for a terminal"}},
		{"PID_NS CGROUPS", probe.Spec{Runtime: "runc"}, EndSetup, []string{"CONFIG_PID_NS for runc", "CONFIG_CGROUPS for runc"}},
		{"CGROUPS SIGNALFD", probe.Spec{Init: "systemd", Guest: true}, EndSetup, []string{"CONFIG_CGROUPS for systemd", "CONFIG_SIGNALFD for systemd"}},
		{"MULTIUSER", probe.Spec{}, EndSetup, []string{"CONFIG_MULTIUSER for users other than root"}},
		// Without the guest there is no test.
		{"TMPFS USER_NS", probe.Spec{UserNS: true}, EndBoot, []string{"CONFIG_TMPFS is not set"}},
	} {
		c := whole(t)
		for _, symbol := range strings.Fields(test.off) {
			c[symbol] = "n"
		}
		end, detail := shortfall(c, nil, Spec{Test: test.test})
		if end != test.end || (detail == "") != (test.end == EndBuilt) {
			t.Errorf("without %q: %s: %s", test.off, end, detail)
		}
		for _, want := range test.detail {
			if !strings.Contains(detail, want) {
				t.Errorf("without %q: %q does not say %q", test.off, detail, want)
			}
		}
	}
	// Before Linux 4.1 nobody could choose it.
	old := whole(t)
	delete(old, "MULTIUSER")
	if end, detail := shortfall(old, nil, Spec{}); end != EndBuilt {
		t.Errorf("an old kernel: %s", detail)
	}
	c := whole(t)
	c["USER_NS"] = "n"
	if _, detail := shortfall(c, nil, Spec{Test: probe.Spec{UserNS: true}, Kernel: KernelSpec{Repo: "linux"}}); !strings.HasSuffix(detail, "--config FILE adds it, where FILE says CONFIG_USER_NS=y") {
		t.Errorf("of a kernel that is built: %s", detail)
	}
}

// A kernel with which the test cannot be made is not compiled, and what the test will
// be made without is said before.
func TestRefuse(t *testing.T) {
	r := newSmallRepo(t)
	c := whole(t)
	c["USER_NS"], c["PID_NS"] = "n", "n"
	poor := r.commits[0]
	r.write("resolved", string(c.Bytes()))
	rich := r.commit("configured", "fine")
	l := testLab(t)
	var said []string
	l.Progress.Line = func(text string) { said = append(said, text) }
	for _, test := range []struct {
		userns bool
		commit string
		end    End
	}{{false, poor, EndBoot}, {true, rich, EndSetup}, {false, rich, EndBuilt}} {
		s := Spec{
			Kernel: KernelSpec{Repo: r.dir, Commit: test.commit, Config: []string{"tiny"}},
			Images: []Load{{Name: "test", Reference: "rootfs:nothing"}},
			Test:   probe.Spec{UserNS: test.userns},
		}
		k, err := l.source(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		trial, err := k.trial(t.Context())
		k.Close()
		if err != nil {
			t.Fatal(err)
		}
		if trial.End != test.end || trial.Cached || (trial.Kernel.Image == "") != (test.end != EndBuilt) || trial.Failure != nil {
			t.Errorf("%+v: %+v", test, trial)
		}
	}
	const want = "its config lacks what the container has elsewhere; the test runs without: CONFIG_PID_NS for process numbers of its own"
	if !slices.Contains(said, want) {
		t.Errorf("said: %q", said)
	}
}
