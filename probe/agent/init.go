//go:build linux

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"lab/probe"
	"lab/probe/wire"
)

// Where the agent leaves itself, and what it was to do, when systemd becomes PID 1.
const (
	serviceAgent = engineDir + "/agent"
	serviceSpec  = engineDir + "/spec.json" // the JSON of a handed
	serviceName  = "lab.service"
	serviceUnit  = "/run/systemd/system/" + serviceName
	machineID    = "/etc/machine-id"
	systemBus    = "/run/dbus/system_bus_socket"
)

// A handed is what the agent leaves for itself.
type handed struct {
	Spec  probe.Spec `json:"spec"`
	Notes []string   `json:"notes"`
}

// unit is that of the agent (systemd.service(5)). As every service it comes after
// basic.target, which has the journal, and the sockets of D-Bus and others. Delegated
// are control groups for the container to have, with all controllers: systemd takes
// those away that no unit wants. What the engines start is no task too many, and where
// memory is short the kernel's choice is all that is killed. An agent that ends without
// having switched the machine off has failed.
const unit = `[Unit]
Description=lab's agent
Wants=basic.target
FailureAction=poweroff-force
SuccessAction=poweroff-force
[Service]
ExecStart=` + serviceAgent + `
StandardOutput=null
StandardError=null
Delegate=yes
TasksMax=infinity
OOMPolicy=continue
`

// startInit makes systemd PID 1, in the agent's place. It returns only where that
// cannot be.
func (a *agent) startInit(spec probe.Spec) error {
	path, err := findSystemd()
	if err != nil {
		return err
	}
	if !hasFilesystem("cgroup2") {
		return errors.New("systemd wants control groups of version 2, and the kernel has none (CONFIG_CGROUPS, since Linux 4.5)")
	}
	for _, prepare := range []func() error{mountRun, a.leaveAgent, func() error { return a.leaveSpec(spec) }, giveMachineID, hideFstab} {
		if err := prepare(); err != nil {
			return fmt.Errorf("prepare for systemd: %w", err)
		}
	}
	// One that gives up restarts the machine, which ends it.
	argv := []string{path, "--unit=" + serviceName, "--crash-reboot", "--show-status=no", "--log-target=kmsg", "--log-level=warning"}
	return fmt.Errorf("start systemd: %w", explainExec(path, syscall.Exec(path, argv, []string{"PATH=" + defaultPath})))
}

// takeBack makes the agent that was to hand over to its service one that speaks for
// itself.
func (a *agent) takeBack(spec probe.Spec) error {
	notes := a.notes
	a.handOver, a.notes = false, nil
	if !a.alone {
		if err := a.connect(spec.MaxOutput, false); err != nil {
			return err
		}
	}
	for _, n := range notes {
		a.note("%s", n)
	}
	return nil
}

// findSystemd finds it where Debian had it before it merged /usr, and where all have it.
func findSystemd() (path string, err error) {
	for _, path = range []string{"/lib/systemd/systemd", "/usr/lib/systemd/systemd"} {
		if err = executable(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("the base has no systemd (%w): name an image that has it with --base, or leave out --init", err)
}

// leaveAgent leaves this program, whose file the disk hides, where systemd finds it.
func (a *agent) leaveAgent() error {
	if err := os.WriteFile(serviceAgent, nil, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/proc/self/exe", serviceAgent, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind the agent to %s: %w", serviceAgent, err)
	}
	if err := os.MkdirAll("/run/systemd/system", 0o755); err != nil {
		return err
	}
	return os.WriteFile(serviceUnit, []byte(unit), 0o644)
}

func (a *agent) leaveSpec(spec probe.Spec) error {
	data, err := json.Marshal(handed{spec, a.notes})
	if err != nil {
		return err
	}
	return os.WriteFile(serviceSpec, data, 0o600)
}

// giveMachineID gives a base that has none one that is always the same. systemd
// would make a random one, and take the boot for the first one of a system, at which
// it enables services and asks questions (machine-id(5)).
func giveMachineID() error {
	id, err := os.ReadFile(machineID)
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(strings.TrimSpace(string(id))) == 32 {
		return err
	}
	if err := os.MkdirAll("/etc", 0o755); err != nil {
		return err
	}
	return os.WriteFile(machineID, []byte("6c616264696d616368696e6569640000\n"), 0o444)
}

// hideFstab has systemd mount and check nothing: what the base's file says is of another
// machine's disks.
func hideFstab() error {
	const fstab = "/etc/fstab"
	if _, err := os.Stat(fstab); err != nil {
		return nil
	}
	if err := unix.Mount(os.DevNull, fstab, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("hide %s: %w", fstab, err)
	}
	return nil
}

// serve goes on where startInit ended, as systemd's service.
func (a *agent) serve() (wire.Done, error) {
	failed := wire.Done{Exit: -1}
	// What engines leave behind becomes the agent's child, as it is PID 1's elsewhere.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return failed, fmt.Errorf("have orphans for children: %w", err)
	}
	if err := a.look(); err != nil {
		return failed, err
	}
	var h handed
	data, err := os.ReadFile(serviceSpec)
	if err == nil {
		err = json.Unmarshal(data, &h)
	}
	if a.alone {
		a.useAllConsoles()
	} else if err := a.connect(h.Spec.MaxOutput, false); err != nil {
		return failed, err
	}
	if err != nil {
		return failed, fmt.Errorf("read the test's spec: %w", err)
	}
	for _, n := range h.Notes {
		a.note("%s", n)
	}
	// systemd takes a clock that is behind its own making for a wrong one.
	if err := setClock(h.Spec.Epoch); err != nil {
		return failed, err
	}
	path, err := findSystemd()
	if err != nil {
		return failed, err
	}
	said, err := exec.Command(path, "--version").Output()
	if err != nil {
		return failed, fmt.Errorf("ask systemd for its version: %w", err)
	}
	a.init, _, _ = strings.Cut(string(said), "\n")
	return a.runContainer(h.Spec)
}

// Drivers of control groups: the engine makes them itself, or asks systemd.
const (
	cgroupfs = "cgroupfs"
	systemd  = "systemd"
)

// cgroupDriver is the one that an engine is to have, as on a system of that kind.
func cgroupDriver(spec probe.Spec) string {
	if spec.Init == systemd && spec.Runtime != "" {
		return systemd
	}
	return cgroupfs
}

// missesBus adds to an engine's failure what may be the reason of it: crun asks systemd by
// D-Bus, where runc has another way.
func (e *engine) missesBus(err error) error {
	if _, missing := os.Stat(systemBus); missing == nil || cgroupDriver(e.spec) != systemd {
		return err
	}
	return fmt.Errorf("%w; the base has no D-Bus, by which engines ask systemd for control groups: add the package dbus to it", err)
}
